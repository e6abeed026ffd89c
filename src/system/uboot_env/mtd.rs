//! Raw flash (`/dev/mtdN`): erase blocks, bad blocks, and the ioctls for both.
//!
//! Owns which blocks a copy occupies, as `fw_setenv` counts them: bad NAND blocks are passed
//! over within the sectors that `fw_env.config` grants. Knows nothing of environments.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

/// `struct mtd_info_user` of `mtd/mtd-abi.h`.
#[repr(C)]
#[derive(Default)]
pub struct MtdInfo {
    kind: u8,
    flags: u32,
    size: u32,
    erase_size: u32,
    write_size: u32,
    oob_size: u32,
    padding: u64,
}

/// `struct erase_info_user`.
#[repr(C)]
pub struct EraseInfo {
    start: u32,
    length: u32,
}

nix::ioctl_read!(mem_get_info, b'M', 1, MtdInfo);
nix::ioctl_write_ptr!(mem_erase, b'M', 2, EraseInfo);
nix::ioctl_write_ptr!(mem_lock, b'M', 5, EraseInfo);
nix::ioctl_write_ptr!(mem_unlock, b'M', 6, EraseInfo);
nix::ioctl_write_ptr!(mem_get_bad_block, b'M', 11, i64);
nix::ioctl_read!(mem_is_locked, b'M', 23, EraseInfo);

/// Types in [`MtdInfo::kind`] that are treated apart.
const NAND: u8 = 4;
const DATAFLASH: u8 = 6;
const MLC_NAND: u8 = 8;

/// Flash in blocks; a block's `start` is its first byte's offset.
pub(super) trait Flash {
    fn erase_size(&self) -> u64;
    fn is_bad(&self, start: u64) -> io::Result<bool>;
    fn read(&self, start: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Erases the block at `start` and fills it with exactly one block of bytes.
    fn replace(&self, start: u64, bytes: &[u8]) -> io::Result<()>;
}

/// The real thing.
pub(super) struct MtdDevice<'a> {
    file: &'a File,
    info: MtdInfo,
}

impl<'a> MtdDevice<'a> {
    pub fn new(file: &'a File) -> io::Result<Self> {
        let mut info = MtdInfo::default();
        // SAFETY: the descriptor is open while `file` lives, and MEMGETINFO writes one
        // `mtd_info_user`, whose layout `MtdInfo` has.
        unsafe { mem_get_info(file.as_raw_fd(), &raw mut info)? };
        match info.erase_size {
            0 => Err(io::Error::other("its erase blocks have no size")),
            _ => Ok(Self { file, info }),
        }
    }

    fn block(&self, start: u64) -> io::Result<EraseInfo> {
        let start = u32::try_from(start)
            .map_err(|_| io::Error::other("the block lies beyond the first 4 GiB"))?;
        Ok(EraseInfo {
            start,
            length: self.info.erase_size,
        })
    }

    /// Unlocks the block at `start` while `work` runs. Flash without locks refuses these
    /// calls, which is fine; flash that stays locked refuses the work itself.
    fn unlocked(&self, start: u64, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut block = self.block(start)?;
        let fd = self.file.as_raw_fd();
        // SAFETY: the descriptor is open; MEMISLOCKED reads one `erase_info_user`, whose
        // layout `EraseInfo` has, and whatever it might write stays within it.
        let locked = unsafe { mem_is_locked(fd, &raw mut block) };
        let block = self.block(start)?;
        // SAFETY: the descriptor is open, and MEMUNLOCK only reads the struct.
        let _ = unsafe { mem_unlock(fd, &raw const block) };
        let result = work();
        if locked == Ok(1) {
            // SAFETY: as for MEMUNLOCK.
            let _ = unsafe { mem_lock(fd, &raw const block) };
        }
        result
    }

    /// Clears bits in place, which flash can do without erasing.
    pub fn overwrite_byte(&self, at: u64, byte: u8) -> io::Result<()> {
        let start = at - at % self.erase_size();
        self.unlocked(start, || self.file.write_all_at(&[byte], at))
    }
}

impl Flash for MtdDevice<'_> {
    fn erase_size(&self) -> u64 {
        u64::from(self.info.erase_size)
    }

    fn is_bad(&self, start: u64) -> io::Result<bool> {
        if !matches!(self.info.kind, NAND | MLC_NAND) {
            return Ok(false);
        }
        let offset = i64::try_from(start).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open, and MEMGETBADBLOCK only reads the 64-bit offset.
        let answer = unsafe { mem_get_bad_block(self.file.as_raw_fd(), &raw const offset)? };
        Ok(answer != 0)
    }

    fn read(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, start)
    }

    fn replace(&self, start: u64, bytes: &[u8]) -> io::Result<()> {
        self.unlocked(start, || {
            // DataFlash erases by itself as it writes.
            if self.info.kind != DATAFLASH {
                let block = self.block(start)?;
                // SAFETY: the descriptor is open, and MEMERASE only reads the struct.
                unsafe { mem_erase(self.file.as_raw_fd(), &raw const block)? };
            }
            self.file.write_all_at(bytes, start)
        })
    }
}

/// A stretch of flash as `fw_env.config` names it.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub offset: u64,
    pub size: usize,
    pub sector_size: Option<u64>,
    pub sectors: Option<u64>,
}

impl Span {
    /// Offset of the first byte within its block.
    fn seek(&self, flash: &dyn Flash) -> u64 {
        self.offset % flash.erase_size()
    }

    /// The good blocks that hold the span, in order.
    pub fn blocks(&self, flash: &dyn Flash) -> io::Result<Vec<u64>> {
        let erase = flash.erase_size();
        let first = self.offset - self.seek(flash);
        let needed = (self.seek(flash) + self.size as u64).div_ceil(erase);
        let sector = self.sector_size.unwrap_or(erase).max(erase);
        let granted = match self.sectors {
            Some(sectors) if sectors > 0 => sectors.saturating_mul(sector) / erase,
            _ => needed,
        };
        let mut good = Vec::new();
        for index in 0..granted {
            if good.len() as u64 == needed {
                break;
            }
            let start = first + index * erase;
            if !flash.is_bad(start)? {
                good.push(start);
            }
        }
        if (good.len() as u64) < needed {
            return Err(io::Error::other(format!(
                "{} of {granted} erase blocks are good and it needs {needed}; grant it more \
                 sectors in fw_env.config",
                good.len()
            )));
        }
        Ok(good)
    }

    pub fn read(&self, flash: &dyn Flash) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.size];
        for (start, piece) in self.pieces(flash, &mut bytes)? {
            flash.read(start, piece)?;
        }
        Ok(bytes)
    }

    /// Replaces the span block by block; what else a block holds is kept.
    pub fn write(&self, flash: &dyn Flash, image: &[u8]) -> io::Result<()> {
        let erase = flash.erase_size();
        let mut bytes = image.to_vec();
        for (at, piece) in self.pieces(flash, &mut bytes)? {
            let start = at - at % erase;
            if piece.len() as u64 == erase {
                flash.replace(start, piece)?;
                continue;
            }
            let mut block = vec![0; erase as usize];
            flash.read(start, &mut block)?;
            let seek = (at - start) as usize;
            block[seek..seek + piece.len()].copy_from_slice(piece);
            flash.replace(start, &block)?;
        }
        Ok(())
    }

    /// `bytes` in pieces of at most one block, each with the offset it stands at.
    fn pieces<'b>(
        &self,
        flash: &dyn Flash,
        bytes: &'b mut [u8],
    ) -> io::Result<Vec<(u64, &'b mut [u8])>> {
        let mut rest = bytes;
        let mut seek = self.seek(flash);
        let mut pieces = Vec::new();
        for start in self.blocks(flash)? {
            let length = rest.len().min((flash.erase_size() - seek) as usize);
            let (piece, after) = rest.split_at_mut(length);
            pieces.push((start + seek, piece));
            (rest, seek) = (after, 0);
        }
        Ok(pieces)
    }

    /// Where the span's byte number `index` stands.
    pub fn position(&self, flash: &dyn Flash, index: u64) -> io::Result<u64> {
        let distance = self.seek(flash) + index;
        let blocks = self.blocks(flash)?;
        let block = blocks.get((distance / flash.erase_size()) as usize);
        // Invariant: callers ask for bytes inside the span, and its blocks cover it.
        let start = block.ok_or_else(|| io::Error::other("the byte lies outside the copy"))?;
        Ok(start + distance % flash.erase_size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const BLOCK: usize = 64;

    /// Flash that only clears bits unless erased, with these blocks bad.
    struct Fake {
        bytes: RefCell<Vec<u8>>,
        bad: &'static [u64],
        erased: RefCell<Vec<u64>>,
    }

    impl Fake {
        fn new(bad: &'static [u64]) -> Self {
            Self {
                bytes: RefCell::new((0..8 * BLOCK).map(|at| (at / BLOCK) as u8).collect()),
                bad,
                erased: RefCell::default(),
            }
        }
    }

    impl Flash for Fake {
        fn erase_size(&self) -> u64 {
            BLOCK as u64
        }
        fn is_bad(&self, start: u64) -> io::Result<bool> {
            Ok(self.bad.contains(&(start / BLOCK as u64)))
        }
        fn read(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
            assert!(!self.is_bad(start)?);
            let start = start as usize;
            bytes.copy_from_slice(&self.bytes.borrow()[start..start + bytes.len()]);
            Ok(())
        }
        fn replace(&self, start: u64, bytes: &[u8]) -> io::Result<()> {
            assert!(!self.is_bad(start)? && start.is_multiple_of(BLOCK as u64));
            assert_eq!(bytes.len(), BLOCK);
            self.erased.borrow_mut().push(start / BLOCK as u64);
            let start = start as usize;
            self.bytes.borrow_mut()[start..start + BLOCK].copy_from_slice(bytes);
            Ok(())
        }
    }

    fn span(offset: u64, size: usize, sectors: Option<u64>) -> Span {
        Span {
            offset,
            size,
            sector_size: Some(BLOCK as u64),
            sectors,
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_is_kept() {
        for (offset, size, sectors, bad, erased) in [
            (64, 64, None, &[][..], &[1][..]),
            (64, 128, Some(2), &[], &[1, 2]),
            (64, 16, None, &[], &[1]),
            (80, 16, None, &[], &[1]),
            (80, 112, Some(2), &[], &[1, 2]),
            // NAND: the first or a middle block is bad.
            (64, 64, Some(2), &[1], &[2]),
            (64, 128, Some(3), &[2], &[1, 3]),
            (80, 16, Some(3), &[1, 2], &[3]),
        ] {
            let flash = Fake::new(bad);
            let before = flash.bytes.borrow().clone();
            let image: Vec<u8> = (0..size).map(|at| 0x80 | at as u8).collect();
            let span = span(offset, size, sectors);
            span.write(&flash, &image).unwrap();
            assert_eq!(span.read(&flash).unwrap(), image, "{offset} {size}");
            assert_eq!(*flash.erased.borrow(), erased, "{offset} {size}");
            let after = flash.bytes.borrow();
            let changed = before.iter().zip(after.iter()).filter(|(a, b)| a != b);
            assert_eq!(changed.count(), size);
            let at = span.position(&flash, 4).unwrap() as usize;
            assert_eq!(after[at], image[4]);
        }
    }

    #[test]
    fn too_few_good_blocks_are_refused_before_anything_is_erased() {
        for (sectors, bad) in [(None, &[2][..]), (Some(2), &[1]), (Some(1), &[])] {
            let flash = Fake::new(bad);
            let error = span(64, 128, sectors).write(&flash, &[0; 128]).unwrap_err();
            assert!(error.to_string().contains("it needs 2"), "{error}");
            assert!(flash.erased.borrow().is_empty());
        }
    }
}
