//! NVRTC: the text of a unit becomes PTX and a cubin for Hopper. No GPU and no driver are needed.

use std::ffi::{CStr, CString, NulError};

use cudarc::nvrtc::result::{self, NvrtcError};
use cudarc::nvrtc::sys;
use thiserror::Error;

use super::toolkit::{HOW_TO_INSTALL, load};

/// The architecture: Hopper with `wgmma`.
pub const ARCHITECTURE: &str = "sm_90a";

/// What every unit is compiled with. Nothing is contracted: the interpreter rounds every product, and a fused
/// multiply-add is one that the building blocks write.
pub const FLAGS: [&str; 4] = ["--gpu-architecture=sm_90a", "-lineinfo", "--fmad=false", "--std=c++20"];

/// A compiled unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// PTX, with positions in the building blocks.
    pub ptx: String,
    /// Machine code: an ELF file.
    pub cubin: Vec<u8>,
}

/// Why a unit was not compiled.
#[derive(Debug, Error)]
pub enum NvrtcFailure {
    /// There is no NVRTC here.
    #[error("NVRTC, which compiles GPU kernels, is not installed: {HOW_TO_INSTALL}")]
    Missing,
    /// There is another version.
    #[error("NVRTC {0}.{1} is installed, and 13.0 is wanted: {HOW_TO_INSTALL}")]
    Version(i32, i32),
    /// It refused the unit.
    #[error("NVRTC refuses `{name}`:\n{log}")]
    Refused {
        /// The unit's name.
        name: String,
        /// What NVRTC says.
        log: String,
    },
    /// It failed in another way.
    #[error("NVRTC failed: {0}")]
    Failed(#[from] NvrtcError),
    /// A text has a zero byte.
    #[error("the text of a unit ends early: {0}")]
    Text(#[from] NulError),
}

/// NVRTC's version: 13.0.
pub fn version() -> Result<(i32, i32), NvrtcFailure> {
    load().ok_or(NvrtcFailure::Missing)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: NVRTC is loaded, and writes two numbers to where it is told.
    unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result()?;
    if (major, minor) == (13, 0) { Ok((major, minor)) } else { Err(NvrtcFailure::Version(major, minor)) }
}

/// Where the files of a unit seem to be: NVRTC puts the working directory in front of names that are not absolute, and
/// what is compiled would depend on where.
pub(super) const ROOT: &str = "/fireq/";

/// Compiles a self-contained text, whose includes are resolved. Line information names the files of `#line` directives;
/// machine code has them below `/fireq`.
pub fn compile(name: &str, text: &str) -> Result<Compiled, NvrtcFailure> {
    version()?;
    let (text, file) = (CString::new(rooted(text))?, CString::new(format!("{ROOT}{name}.cu"))?);
    let program = Program(result::create_program(&text, Some(&file))?);
    // SAFETY: the program is alive until `program` is dropped.
    let compiled = unsafe { result::compile_program(program.0, &FLAGS) };
    if compiled.is_err() {
        return Err(NvrtcFailure::Refused { name: name.into(), log: program.log()?.replace(ROOT, "") });
    }
    let ptx = program.ptx()?.replace(&format!("\"{ROOT}"), "\"");
    Ok(Compiled { ptx, cubin: program.cubin()? })
}

/// The text with absolute names in `#line` directives.
fn rooted(text: &str) -> String {
    let line = |line: &str| match line.split_once('"') {
        Some((before, name)) if before.starts_with("#line ") => format!("{before}\"{ROOT}{name}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> Result<String, NvrtcError> {
        // SAFETY: the program is alive.
        Ok(string(&unsafe { result::get_program_log(self.0) }?))
    }

    fn ptx(&self) -> Result<String, NvrtcError> {
        // SAFETY: the program is alive, and compiled.
        Ok(string(&unsafe { result::get_ptx(self.0) }?))
    }

    fn cubin(&self) -> Result<Vec<u8>, NvrtcError> {
        let mut size = 0;
        // SAFETY: the program is alive, and NVRTC writes one number.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) }.result()?;
        let mut cubin = vec![0u8; size];
        // SAFETY: the program is alive, and NVRTC writes the bytes that it said it would.
        unsafe { sys::nvrtcGetCUBIN(self.0, cubin.as_mut_ptr().cast()) }.result()?;
        Ok(cubin)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is alive, and nothing uses it after this. What NVRTC says about it changes nothing.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Text that NVRTC ends with a zero byte.
fn string(bytes: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|byte| *byte as u8).collect();
    CStr::from_bytes_until_nul(&bytes)
        .map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
}
