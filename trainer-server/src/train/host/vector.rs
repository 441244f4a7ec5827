//! Loops with the widest vector instructions of this machine.

/// Moved into the closure of [`vectorized`] so that it can be called once only.
pub(super) struct Once;

/// Compiles a block for the widest vector instructions and runs it.
///
/// A macro because of inlining: `pulp` compiles what is inlined into its own function. A closure that can be
/// called again is reached through a function between, which the compiler need not inline and then compiles for
/// the oldest machine; one that consumes a capture is called directly.
macro_rules! vectorized {
    ($block:block) => {{
        let once = $crate::train::host::vector::Once;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                let _consumed = once;
                $block
            },
        )
    }};
}
pub(super) use vectorized;
