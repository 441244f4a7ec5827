//! The worker that `freshet` and `freshet/webgpu` start.

import { CPU } from './lib/runtime-cpu.js';
import { WEBGPU } from './lib/runtime-webgpu.js';
import { serve } from './lib/serve.js';

serve({ cpu: CPU, webgpu: WEBGPU });
