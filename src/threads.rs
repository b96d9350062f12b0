//! How many threads one tensor operation may use. The only `unsafe` of the program, audited: it runs before any thread is started.

/// Has candle run each elementwise operation on the thread that asks for it.
///
/// igq runs whole pictures and whole sites side by side. candle's own pool takes one operation at a time and waits by spinning, so that
/// two networks that run at once take turns: with it the exact perturbations of the built-in model took 2.1 times as long. Matrix products
/// keep their threads. A number that the user has set is left alone.
///
/// To be called at the very start of `main`.
pub fn run_side_by_side() {
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: the caller is at the start of `main`, so no other thread can read the environment meanwhile.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var(VARIABLE, "1");
        }
    }
}
