//! How many threads one tensor operation may use. `unsafe`, audited: it runs before any thread is started.

/// Has candle run each elementwise operation on the thread that asks for it, and look up the number of processors once.
///
/// igq runs whole pictures and whole sites side by side. candle's own pool takes one operation at a time and waits by spinning, so that
/// two networks that run at once take turns: with it the exact perturbations of the built-in model took 2.1 times as long. Matrix products
/// keep their threads, but unless their number is in the environment candle reads the kernel's list of processors at every product.
/// Numbers that the user has set are left alone.
///
/// To be called at the very start of `main`.
pub fn run_side_by_side() {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for (variable, threads) in [("CANDLE_NUM_THREADS", 1), ("RAYON_NUM_THREADS", processors)] {
        if std::env::var_os(variable).is_none() {
            // SAFETY: the caller is at the start of `main`, so no other thread can read the environment meanwhile.
            #[allow(unsafe_code)]
            unsafe {
                std::env::set_var(variable, threads.to_string());
            }
        }
    }
    keep_pages();
}

/// Has the allocator keep pages for ten seconds that are free: the buffers of one run are those of the next, and a page that the system gives
/// again is a fault and a cleared page, a tenth of the time of an answer.
fn keep_pages() {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15; // `mi_option_purge_delay` in mimalloc 2 and 3
    // SAFETY: sets a number that the allocator reads; any thread may do so at any time.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, 10_000);
    }
}

/// Does `work` on one of the threads that kernels share: from any other thread every operation would be handed over and waited for.
pub fn in_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

/// Threads for long work, as many as there are processors; where the system knows priorities of threads, theirs is the lowest. `None` where
/// the system has no threads to give.
#[must_use]
pub fn background_pool() -> Option<rayon::ThreadPool> {
    let give_way = |_| {
        // On other systems a priority belongs to the whole process.
        #[cfg(target_os = "linux")]
        let _ = rustix::process::nice(19);
    };
    rayon::ThreadPoolBuilder::new().thread_name(|index| format!("igq-study-{index}")).start_handler(give_way).build().ok()
}
