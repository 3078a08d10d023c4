//! A directory of files that are made while they are read, through FUSE: a checkpoint larger than any disk, and one whose
//! disk fails. Speaks the kernel's protocol itself, so nothing has to be installed; root mounts it, in a namespace of the
//! calling thread and of the processes that it starts, with which it goes.

mod protocol;

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a file holds.
pub trait Content: Send + Sync {
    /// How many bytes.
    fn size(&self) -> u64;
    /// Those from `at` on, which are not more than there are.
    fn read_at(&self, at: u64, to: &mut [u8]);
}

impl Content for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, at: u64, to: &mut [u8]) {
        to.copy_from_slice(&self[at as usize..][..to.len()]);
    }
}

impl Content for crate::random_model::Shard {
    fn size(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, at: u64, to: &mut [u8]) {
        Self::read_at(self, at, to);
    }
}

/// A file of the directory.
pub struct Served {
    name: String,
    content: Box<dyn Content>,
    /// Seconds since 1970 when it was last written.
    written: AtomicU64,
    /// From where on reading fails.
    fails_from: AtomicU64,
    read: AtomicU64,
}

impl Served {
    /// A file that does not fail.
    pub fn new(name: &str, content: impl Content + 'static) -> Self {
        Served {
            name: name.into(),
            content: Box::new(content),
            written: AtomicU64::new(1_000_000_000),
            fails_from: AtomicU64::new(u64::MAX),
            read: AtomicU64::new(0),
        }
    }

    /// From now on reading fails from byte `at` on.
    pub fn fail_from(&self, at: u64) {
        self.fails_from.store(at, Ordering::SeqCst);
    }

    /// Looks from now on as if it had been written again.
    pub fn touch(&self) {
        self.written.fetch_add(1, Ordering::SeqCst);
    }

    /// Bytes that the system read.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }
}

/// A directory of files, mounted as long as this lives.
pub struct Mounted {
    path: PathBuf,
    files: Arc<Vec<Served>>,
}

/// Threads that serve.
const THREADS: usize = 2;

impl Mounted {
    /// Mounts files at the empty directory `path`, for this thread and the processes that it starts. The reason why not, where
    /// the system does not let us.
    pub fn new(path: &Path, files: Vec<Served>) -> Result<Self, String> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|e| format!("serving files needs /dev/fuse: {e}"))?;
        mount(&device, path).map_err(|e| format!("serving files needs root, to mount: {e}"))?;
        let (device, files) = (Arc::new(device), Arc::new(files));
        for _ in 0..THREADS {
            let (device, files) = (device.clone(), files.clone());
            std::thread::spawn(move || protocol::serve(&device, &files));
        }
        Ok(Mounted { path: path.to_path_buf(), files })
    }

    /// The files.
    pub fn files(&self) -> &[Served] {
        &self.files
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.path.as_os_str().as_bytes()) {
            // SAFETY: the path is a string that ends in a zero.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

fn mount(device: &File, path: &Path) -> io::Result<()> {
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,max_read={}",
        device.as_raw_fd(),
        protocol::LARGEST_READ
    );
    let path = path.canonicalize()?;
    let [path, options, name, kind, root] =
        [path.as_os_str().as_bytes(), options.as_bytes(), b"fireq", b"fuse", b"/"].map(CString::new);
    let (path, options, name, kind, root) = (path?, options?, name?, kind?, root?);
    let none = std::ptr::null();
    // SAFETY: all are strings that end in a zero, or none.
    let done = unsafe {
        // Others need not see it, and it goes when nobody is left that does.
        let own = libc::unshare(libc::CLONE_NEWNS);
        let private = libc::mount(none, root.as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast());
        let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV;
        own == 0
            && private == 0
            && libc::mount(name.as_ptr(), path.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
