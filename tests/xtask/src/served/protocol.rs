//! The part of FUSE's protocol, version 7.31, that a directory of files which are only read needs. Messages are those of
//! Linux's `fuse.h`: numbers of the machine's byte order behind a header.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;

use super::Served;

/// The most bytes of an answer to a reader.
pub(super) const LARGEST_READ: usize = 1 << 20;

/// The smallest buffer for requests that the kernel accepts; ours are smaller.
const REQUEST: usize = 64 << 10;
const REQUEST_HEADER: usize = 40;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// The directory's number; files have those behind it, in their order.
const ROOT: u64 = 1;
const DIRECTORY: u32 = 0o040_555;
const REGULAR: u32 = 0o100_444;
/// Reads may be answered in any order, and have as many pages as we say.
const ASYNC_READ: u32 = 1;
const MAX_PAGES: u32 = 1 << 22;
/// What was read before stays in memory when a file is opened again.
const KEEP_CACHE: u32 = 1 << 1;

/// A request: what is wanted of which number, and the arguments.
struct Request<'a> {
    opcode: u32,
    unique: u64,
    node: u64,
    arguments: &'a [u8],
}

/// What is answered: bytes, an error's number, or nothing at all.
type Answer = Option<Result<Vec<u8>, i32>>;

/// Answers requests until the directory is unmounted.
pub(super) fn serve(device: &File, files: &[Served]) {
    let mut buffer = vec![0; REQUEST];
    loop {
        let mut device = device;
        let count = match device.read(&mut buffer) {
            Ok(count) => count,
            // A request that was taken back before it was read.
            Err(e) if e.kind() == io::ErrorKind::Interrupted || e.raw_os_error() == Some(libc::ENOENT) => {
                continue;
            }
            Err(_) => return,
        };
        let Some(request) = parse(&buffer[..count]) else { continue };
        let Some(answer) = answer(&request, files) else { continue };
        let (error, body) = answer.map_or_else(|number| (-number, vec![]), |body| (0, body));
        let length = (16 + body.len()) as u32;
        let head = [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &request.unique.to_ne_bytes()].concat();
        // A reader that is gone wants no answer.
        let _ = device.write(&[head, body].concat());
    }
}

fn parse(bytes: &[u8]) -> Option<Request<'_>> {
    let (header, arguments) = bytes.split_at_checked(REQUEST_HEADER)?;
    Some(Request {
        opcode: u32_at(header, 4)?,
        unique: u64_at(header, 8)?,
        node: u64_at(header, 16)?,
        arguments,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn answer(request: &Request<'_>, files: &[Served]) -> Answer {
    Some(match request.opcode {
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        INIT => Ok(init(request.arguments)),
        LOOKUP => lookup(request.arguments, files),
        GETATTR => attributes(request.node, files).map(|found| [vec![0; 16], found].concat()),
        OPEN | OPENDIR => Ok([&[0; 8][..], &KEEP_CACHE.to_ne_bytes(), &[0; 4]].concat()),
        READ => read(request, files),
        READDIR => Ok(list(u64_at(request.arguments, 8).unwrap_or(0), files)),
        STATFS => Ok(vec![0; 80]),
        RELEASE | RELEASEDIR | FLUSH => Ok(vec![]),
        _ => Err(libc::ENOSYS),
    })
}

/// The version and what both sides can do.
fn init(arguments: &[u8]) -> Vec<u8> {
    let readahead = u32_at(arguments, 8).unwrap_or(0);
    let words =
        [7, 31, readahead, ASYNC_READ | MAX_PAGES, 16 | 12 << 16, 4096, 1, (LARGEST_READ >> 12) as u32];
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    body.resize(64, 0);
    body
}

/// The number of a name. Nothing is to be remembered, so that changes are seen at once.
fn lookup(arguments: &[u8], files: &[Served]) -> Result<Vec<u8>, i32> {
    let name = arguments.strip_suffix(&[0]).unwrap_or(arguments);
    let found = files.iter().position(|file| file.name.as_bytes() == name).ok_or(libc::ENOENT)?;
    let node = ROOT + 1 + found as u64;
    Ok([node.to_ne_bytes().to_vec(), vec![0; 32], attributes(node, files)?].concat())
}

fn file(node: u64, files: &[Served]) -> Result<&Served, i32> {
    node.checked_sub(ROOT + 1).and_then(|n| files.get(n as usize)).ok_or(libc::ENOENT)
}

fn attributes(node: u64, files: &[Served]) -> Result<Vec<u8>, i32> {
    let (size, written, mode) = if node == ROOT {
        (0, 0, DIRECTORY)
    } else {
        let file = file(node, files)?;
        (file.content.size(), file.written.load(Ordering::SeqCst), REGULAR)
    };
    let long = [node, size, size.div_ceil(512), written, written, written];
    // Nanoseconds of three times, mode, links, owner, group, device, block size, flags.
    let short = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
    let long = long.iter().flat_map(|n| n.to_ne_bytes());
    Ok(long.chain(short.iter().flat_map(|n: &u32| n.to_ne_bytes())).collect())
}

fn read(request: &Request<'_>, files: &[Served]) -> Result<Vec<u8>, i32> {
    let file = file(request.node, files)?;
    let (at, count) = (u64_at(request.arguments, 8), u32_at(request.arguments, 16));
    let (at, count) = at.zip(count).ok_or(libc::EINVAL)?;
    let end = file.content.size().min(at + u64::from(count));
    if end > file.fails_from.load(Ordering::SeqCst) {
        return Err(libc::EIO);
    }
    let mut bytes = vec![0; end.saturating_sub(at) as usize];
    file.content.read_at(at, &mut bytes);
    file.read.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    Ok(bytes)
}

/// Entries from the `skip`th on, all in one answer.
fn list(skip: u64, files: &[Served]) -> Vec<u8> {
    let mut body = vec![];
    for (n, file) in (1..).zip(files).skip(skip as usize) {
        let entry_start = body.len();
        let node: u64 = ROOT + n;
        body.extend([node.to_ne_bytes(), n.to_ne_bytes()].concat());
        body.extend([(file.name.len() as u32).to_ne_bytes(), (REGULAR >> 12).to_ne_bytes()].concat());
        body.extend(file.name.as_bytes());
        body.resize(entry_start + (body.len() - entry_start).next_multiple_of(8), 0);
        if body.len() > 3000 {
            break;
        }
    }
    body
}
