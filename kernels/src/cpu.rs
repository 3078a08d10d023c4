//! Features of CPUs, by the names that `is_x86_feature_detected!` takes.

/// What x86-64-v3 adds to the baseline, as far as code generators use it.
pub const X86_V3: [&str; 8] = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe"];
/// What x86-64-v4 adds to x86-64-v3.
pub const X86_V4: [&str; 5] = ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"];
/// What the code for products of bf16 needs beside x86-64-v4.
pub const X86_BF16: [&str; 1] = ["avx512bf16"];

/// Whether this machine's CPU has a feature. Names that are in neither list count as missing.
#[cfg(target_arch = "x86_64")]
pub fn has_feature(name: &str) -> bool {
    macro_rules! detect {
        ($($feature:tt)*) => {
            match name {
                $( $feature => std::is_x86_feature_detected!($feature), )*
                _ => false,
            }
        };
    }
    detect!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe"
        "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512bf16")
}

/// Whether this machine's CPU has a feature: no other architecture has optional ones that code generators use.
#[cfg(not(target_arch = "x86_64"))]
pub fn has_feature(_name: &str) -> bool {
    false
}

/// Whether this machine's CPU has all of these features.
pub fn has_all(features: &[&str]) -> bool {
    features.iter().all(|feature| has_feature(feature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_features_are_missing_and_levels_build_on_each_other() {
        assert!(!has_feature("sse9"));
        assert!(!has_all(&["avx2", "telepathy"]));
        if has_all(&X86_V4) {
            assert!(has_all(&X86_V3), "no CPU has AVX-512 without AVX2");
        }
    }
}
