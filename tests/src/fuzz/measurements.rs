//! What was measured, as JSON: of GPUs, and of quantization.

use fireq::report::{Report, html};
use fireq_codegen::cuda::linear::units;
use fireq_kernels::cuda::Linear;
use fireq_kernels::cuda::tuning::Tuning;

use super::show;

/// A table of measurements or a report: what is accepted prints to what reads the same, and can be used.
pub fn measurements(text: &str) {
    match Tuning::parse(text) {
        Ok(tuning) => use_tuning(&tuning),
        Err(error) => assert!(!error.is_empty()),
    }
    match Report::from_json(text) {
        Ok(report) => {
            let printed = report.to_json();
            let again = Report::from_json(&printed).unwrap_or_else(|e| panic!("{e}: {printed}"));
            assert_eq!(again.to_json(), printed);
            let page = html(&report);
            let template = html(&Report::default());
            assert_eq!(
                page.matches("<script").count(),
                template.matches("<script").count(),
                "data became markup"
            );
        }
        Err(error) => show(&error),
    }
}

/// Methods are chosen for products, and units are printed for them or refused.
fn use_tuning(tuning: &Tuning) {
    let printed = tuning.to_json();
    assert_eq!(Tuning::parse(&printed).as_ref(), Ok(tuning), "{printed}");
    let linears = [Linear::plain(256, 128, 128), Linear::plain(4096, 4096, 128)];
    let named = tuning.products.keys().next();
    for linear in linears {
        let mut tuning = tuning.clone();
        if let Some(winners) = named.and_then(|name| tuning.products.remove(name)) {
            tuning.products.insert(linear.to_string(), winners);
        }
        for chosen in tuning.choose(&linear) {
            assert!(chosen.to.is_none_or(|to| chosen.from <= to), "{chosen:?}");
            match units(&linear, &chosen.method, chosen.reason) {
                Ok(units) => assert!(!units.is_empty()),
                Err(error) => show(&error),
            }
        }
    }
}
