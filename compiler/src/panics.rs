//! Panics of other people's code on files that they do not expect, as errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives; where it panics, what the panic says, which is printed nowhere. Nothing that `work` changed is to be used
/// after an error.
pub fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(be_silent_about_what_is_caught);
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    result.unwrap_or_else(|panic| Err(format!("its library cannot cope with it: {}", said(&*panic))))
}

/// All other panics are told as before.
fn be_silent_about_what_is_caught() {
    let told = take_hook();
    set_hook(Box::new(move |panic| {
        if !CAUGHT.get() {
            told(panic);
        }
    }));
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panics")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_errors_and_results_are_results() {
        assert_eq!(caught(|| Ok(7)), Ok(7));
        assert_eq!(caught::<()>(|| Err("no".into())), Err("no".into()));
        let panics = [caught::<()>(|| panic!("at once")), caught(|| panic!("after {}", 7))];
        let said = ["at once", "after 7"].map(|text| Err(format!("its library cannot cope with it: {text}")));
        assert_eq!(panics, said);
        assert!(!CAUGHT.get());
    }
}
