//! The only module with `unsafe`: thin, safe wrappers of calls that no library offers safely.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;

use nix::sys::signal::{SigHandler, Signal};
use nix::unistd::ForkResult;
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, ReadBuf};

/// Splits the process in two. Both sides go on from here.
///
/// # Panics
///
/// If the process has more than one thread: a lock that another thread holds would stay locked for ever in the child.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    assert_eq!(threads(), 1, "fork is only allowed while the process has one thread");
    // SAFETY: the process has one thread, so the child's memory is consistent, and it may do whatever its parent may.
    unsafe { nix::unistd::fork() }
}

/// How many threads this process has; 1 if the system does not say.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, |tasks| tasks.count())
}

/// Sets a signal to be ignored, or to have its default effect.
pub(crate) fn dispose(signal: Signal, ignore: bool) {
    let handler = if ignore { SigHandler::SigIgn } else { SigHandler::SigDfl };
    // SAFETY: no handler of our own is installed, so nothing has to be async-signal-safe.
    let set = unsafe { nix::sys::signal::signal(signal, handler) };
    debug_assert!(set.is_ok(), "{signal} can be disposed of");
}

/// Ends the process at once: no clean-up of any kind, also when other threads hold locks.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Watches a socket for one kind of readiness.
pub(crate) fn watch(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: the socket is given away, and stays the same open descriptor until it is dropped together with its watcher.
    unsafe { AsyncFd::register_with_interest(socket, interest) }.map_err(Into::into)
}

/// Receives from a socket into the room that a buffer has left. Returns 0 if there is no room, or the other end is done.
pub(crate) fn receive(socket: &impl AsFd, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: no byte that is not initialized is read, and the system only writes to them.
    let room = unsafe { buffer.unfilled_mut() };
    let read = SockRef::from(socket).recv(room)?;
    // SAFETY: the system has written this number of bytes.
    unsafe { buffer.assume_init(read) };
    buffer.advance(read);
    Ok(read)
}

/// Gives memory that is free, but kept by the allocator, back to the system: that of the C library, and of this thread
/// that of mimalloc.
pub(crate) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator takes its own locks, and gives back only memory that nobody uses.
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: the same; it may be called from any thread, and also when it is not the allocator in use.
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// Maps `length` bytes of a file, shared with all processes that are forked later. It is never unmapped.
pub(crate) fn map_shared(file: &OwnedFd, length: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address zero"))
}

/// A reference into a shared mapping.
///
/// # Panics
///
/// If the value would not lie within the mapping, or not be aligned.
pub(crate) fn shared_at<T: Zeroed>(start: NonNull<u8>, length: usize, offset: usize) -> &'static T {
    assert!(offset + size_of::<T>() <= length, "within the mapping");
    // SAFETY: the sum stays within the mapping, as was just checked.
    let at = unsafe { start.add(offset) }.cast::<T>();
    assert!(at.is_aligned(), "aligned");
    // SAFETY: it is mapped for as long as the process lives, aligned, never written but through atomics (`Zeroed` asks
    // for that), and its first content, zeroes, is a valid `T`.
    unsafe { at.as_ref() }
}

/// Types that consist of atomics only, for which zeroes are a valid value.
pub(crate) trait Zeroed: Sync + 'static {}

/// A type that lies in memory as a row of items, and of nothing else.
///
/// # Safety
///
/// The type is `repr(C)`, and its fields are [`RowOf::COUNT`] items one after the other.
pub unsafe trait RowOf<Item>: Sized {
    /// The number of items.
    const COUNT: usize;
}

/// The first items of a longer row as a type with names for them.
///
/// # Panics
///
/// If there are too few items.
pub(crate) fn view<Item, Row: RowOf<Item>>(items: &[Item]) -> &Row {
    assert!(
        Row::COUNT <= items.len(),
        "a row of {} items has no room for {}",
        items.len(),
        Row::COUNT
    );
    // SAFETY: by the contract of `RowOf` the type is as many items as were just counted, so it lies within the slice and is
    // aligned as they are. The reference lives as long as that to the items.
    unsafe { &*items.as_ptr().cast::<Row>() }
}

/// Declares a struct whose first field is a row of items itself, and whose other fields are one item each.
#[doc(hidden)]
#[macro_export]
macro_rules! row_of {
    ($(#[$meta:meta])* $item:ty => $vis:vis struct $row:ident {
        $first_name:ident: $first:ty,
        $($(#[$doc:meta])* $name:ident,)*
    }) => {
        $(#[$meta])*
        #[repr(C)]
        $vis struct $row {
            /// The row that this one begins with.
            $vis $first_name: $first,
            $($(#[$doc])* $vis $name: $item,)*
        }

        // SAFETY: `repr(C)`; the first field is a row of items, as the count asks for, and each other field is an item.
        #[allow(unsafe_code)]
        unsafe impl $crate::RowOf<$item> for $row {
            const COUNT: usize = <$first as $crate::RowOf<$item>>::COUNT + [$(stringify!($name)),*].len();
        }
    };
}

/// A row without items.
#[derive(Debug, Default)]
#[repr(C)]
pub struct NoItems;

// SAFETY: it has no field.
unsafe impl<Item> RowOf<Item> for NoItems {
    const COUNT: usize = 0;
}

/// Closes descriptors.
///
/// Their owners must never be used or dropped again: this is for a child that ends without returning.
pub(crate) fn close(descriptors: &[RawFd]) {
    for fd in descriptors {
        // SAFETY: closing touches no memory, and by the contract nothing uses the descriptor any more.
        unsafe { libc::close(*fd) };
    }
}

/// Closes the descriptors that the program was started with beside the standard ones, such as a pipe that another process
/// reads to its end.
///
/// Descriptors that the program itself has opened are not touched: `std`, and all libraries that are written for threads, set
/// the mark close-on-exec, which inherited descriptors do not have.
pub(crate) fn close_inherited() {
    for fd in open_descriptors().into_iter().filter(|fd| *fd > 2) {
        // SAFETY: the call takes a number, and fails if no descriptor has it.
        let marks = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if marks >= 0 && marks & libc::FD_CLOEXEC == 0 {
            close(&[fd]);
        }
    }
}

fn open_descriptors() -> Vec<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Takes up a descriptor that was handed on by its number, such as from the binary before this one.
///
/// An error if it is not open. The number must have been handed on for this: nobody else may own it.
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes a number, and fails if no descriptor has it.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::other(format!("descriptor {fd} was not handed on")));
    }
    // SAFETY: it is open, and by the contract nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes a variable out of the environment.
pub(crate) fn take_variable(name: &str) -> Option<std::ffi::OsString> {
    let value = std::env::var_os(name)?;
    assert_eq!(
        threads(),
        1,
        "the environment is only changed while the process has one thread"
    );
    // SAFETY: there is no other thread that could read the environment.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_zeroed() {
        let file = nix::sys::memfd::memfd_create(c"test", nix::sys::memfd::MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&file, 4096).unwrap();
        let start = map_shared(&file, 4096).unwrap();
        struct Number(std::sync::atomic::AtomicU64);
        impl Zeroed for Number {}
        let number: &Number = shared_at(start, 4096, 4088);
        assert_eq!(number.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed), 0);
        let again: &Number = shared_at(start, 4096, 4088);
        assert_eq!(again.0.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}
