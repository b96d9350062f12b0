//! A panic in one run becomes an error, so that a bug costs that run only.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Result};

/// Turns a panic into an error, so that a bug in one run costs that run only.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "unknown".into());
        Err(Error::content("this run", format!("ended by a bug in igq ({text})"), "change a setting to go on, and please report it"))
    })
}
