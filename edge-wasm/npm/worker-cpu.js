//! The worker that `freshet/cpu` starts.

import { CPU } from './lib/runtime-cpu.js';
import { serve } from './lib/serve.js';

serve({ cpu: CPU });
