//! What a copy of the environment lies on: a file, a block device or raw flash.
//!
//! Owns telling them apart, reading and writing one copy's bytes, and making them last.
//! Knows neither checksums nor variables.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::major;

use super::config::Location;
use super::mtd::{MtdDevice, Span};

/// Major number of the `/dev/mtdN` character devices.
const MTD_MAJOR: u64 = 90;

/// One copy's place, opened.
pub(super) struct Medium {
    file: File,
    span: Span,
    is_mtd: bool,
    /// Made writable for as long as we write.
    _guard: Option<ForceRo>,
}

impl Medium {
    /// Opens for reading.
    pub fn open(location: &Location) -> io::Result<Self> {
        Self::new(location, File::open(&location.device)?, None)
    }

    /// Opens for reading and writing.
    pub fn open_for_writing(location: &Location) -> io::Result<Self> {
        let kind = fs::metadata(&location.device)?.file_type();
        let guard = match kind.is_block_device() {
            true => ForceRo::lift(&location.device)?,
            false => None,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&location.device)?;
        let medium = Self::new(location, file, guard)?;
        if kind.is_char_device() && !medium.is_mtd {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is a UBI volume or another character device, which only fw_setenv can write",
            ));
        }
        Ok(medium)
    }

    fn new(location: &Location, mut file: File, guard: Option<ForceRo>) -> io::Result<Self> {
        let about = file.metadata()?;
        let is_mtd = about.file_type().is_char_device() && major(about.rdev()) == MTD_MAJOR;
        let offset = match u64::try_from(location.offset) {
            Ok(offset) => offset,
            Err(_) => file
                .seek(SeekFrom::End(0))?
                .checked_sub(location.offset.unsigned_abs())
                .ok_or_else(|| io::Error::other("it is smaller than the offset"))?,
        };
        Ok(Self {
            file,
            span: Span {
                offset,
                size: location.size,
                sector_size: location.sector_size,
                sectors: location.sectors,
            },
            is_mtd,
            _guard: guard,
        })
    }

    pub fn read(&self) -> io::Result<Vec<u8>> {
        if self.is_mtd {
            return self.span.read(&MtdDevice::new(&self.file)?);
        }
        let mut image = vec![0; self.span.size];
        self.file.read_exact_at(&mut image, self.span.offset)?;
        Ok(image)
    }

    /// Writes the whole copy in one go and makes it last.
    pub fn write(&self, image: &[u8]) -> io::Result<()> {
        if self.is_mtd {
            self.span.write(&MtdDevice::new(&self.file)?, image)?;
        } else {
            self.file.write_all_at(image, self.span.offset)?;
        }
        self.sync()
    }

    /// Overwrites the copy's byte number `index` in place.
    pub fn write_byte(&self, index: u64, byte: u8) -> io::Result<()> {
        if self.is_mtd {
            let flash = MtdDevice::new(&self.file)?;
            flash.overwrite_byte(self.span.position(&flash, index)?, byte)?;
        } else {
            self.file.write_all_at(&[byte], self.span.offset + index)?;
        }
        self.sync()
    }

    fn sync(&self) -> io::Result<()> {
        match self.file.sync_all() {
            // Raw flash is written through, and its driver may know no fsync.
            Err(_) if self.is_mtd => {}
            result => result?,
        }
        // Reading back is to ask the medium, not the page cache; only advice.
        let _ = posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(())
    }
}

/// An eMMC boot partition (`mmcblk0boot0`) is read-only until told otherwise; this tells it,
/// and takes it back when dropped.
struct ForceRo(PathBuf);

impl ForceRo {
    fn lift(device: &Path) -> io::Result<Option<Self>> {
        let name = fs::canonicalize(device)?;
        let switch = Path::new("/sys/class/block")
            .join(name.file_name().unwrap_or_default())
            .join("force_ro");
        // Most block devices have no such switch.
        match fs::read_to_string(&switch) {
            Ok(text) if text.trim() == "1" => {
                fs::write(&switch, "0")?;
                Ok(Some(Self(switch)))
            }
            _ => Ok(None),
        }
    }
}

impl Drop for ForceRo {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.0, "1") {
            warn!("{} stays 0: {error}", self.0.display());
        }
    }
}
