//! Start of the module, and what happens when it panics.
//!
//! After a panic the instance is poisoned: the script is told and replaces it.

use std::cell::RefCell;

use js_sys::Function;
use wasm_bindgen::prelude::*;

thread_local! {
    static LISTENER: RefCell<Option<Function>> = const { RefCell::new(None) };
}

/// Runs once when the module is instantiated.
#[wasm_bindgen(start)]
pub fn start() {
    #[cfg(target_family = "wasm")]
    run_constructors();
    std::panic::set_hook(Box::new(|panic| {
        #[cfg(target_family = "wasm")]
        console_error_panic_hook::hook(panic);
        tell(&panic.to_string());
    }));
}

/// Runs the module's static constructors once; without this call the linker would wrap every export
/// in a run of all of them.
#[cfg(target_family = "wasm")]
#[expect(
    unsafe_code,
    reason = "the linker's constructor entry can only be called as a foreign function"
)]
fn run_constructors() {
    unsafe extern "C" {
        fn __wasm_call_ctors();
    }
    // SAFETY: wasm-ld defines this symbol in every module; it takes and returns nothing, and this is its only
    // call, made before any other code of the module runs.
    unsafe { __wasm_call_ctors() };
}

/// Sets the function that is called with the message of a panic, before the trap.
#[wasm_bindgen]
pub fn on_panic(listener: Function) {
    LISTENER.with(|slot| *slot.borrow_mut() = Some(listener));
}

fn tell(message: &str) {
    let listener =
        LISTENER.with(|slot| slot.try_borrow().ok().and_then(|listener| listener.clone())); // in use: it panicked
    if let Some(listener) = listener {
        // A listener that throws cannot be answered from inside a panic.
        drop(listener.call1(&JsValue::NULL, &JsValue::from_str(message)));
    }
}
