//! Who computes a layer: a kernel of the CPU, or Candle operations. The tests can have the latter on the CPU too, which shows
//! without another device that a network needs nothing else there.

/// Do the CPU's kernels run on tensors of `device`? A layer asks when it is loaded and when it runs.
#[cfg(not(test))]
pub(crate) fn kernels_run(device: &candle_core::Device) -> bool {
    device.is_cpu()
}

#[cfg(test)]
pub(crate) use on_the_cpu::{carried, composed, kernels_run};

#[cfg(test)]
mod on_the_cpu {
    use std::cell::Cell;

    use candle_core::Device;

    thread_local! {
        static COMPOSED: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn kernels_run(device: &Device) -> bool {
        device.is_cpu() && !COMPOSED.get()
    }

    /// Runs `work` as on another device: kernels refuse tensors. What is loaded here can be used here alone.
    pub(crate) fn composed<T>(work: impl FnOnce() -> T) -> T {
        let _before = Before(COMPOSED.replace(true));
        work()
    }

    /// `work`, to run in a thread of the pool as it would in this one.
    pub(crate) fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
        let on = COMPOSED.get();
        move || {
            let _before = Before(COMPOSED.replace(on));
            work()
        }
    }

    struct Before(bool);

    impl Drop for Before {
        fn drop(&mut self) {
            COMPOSED.set(self.0);
        }
    }
}
