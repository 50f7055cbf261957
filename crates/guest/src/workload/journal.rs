//! Numbered records through a file system: appended, synced, and the full file renamed.
//!
//! A file holds [`RECORDS_PER_FILE`] records and is named after its first: `000000000001.open` while it grows,
//! `000000000001.log` once it is full. Old files are removed. So a copy of the file system is right if the numbers of all
//! files have no gap, every `.log` is full, and only the last file is `.open`.
//!
//! Crash story: the record that was being appended may be absent, short, or read as zeroes; it was not acknowledged, and
//! the next boot cuts it off. Anything else that is not a whole record is damage.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use farshore_blocks::files::sync_directory_of;

use super::{Pace, progress::Progress, regions::RecordMaker};
use crate::record::{Content, RECORD_BYTES, RECORD_LENGTH, Stream};

const RECORDS_PER_FILE: u64 = 32;
const FILES_KEPT: u64 = 64;
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);

/// What the files hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    pub(super) last: u64,
    pub(super) torn: u64,
    pub(super) gaps: u64,
    pub(super) first_fault: Option<String>,
    /// The first number of the file that is not full yet.
    growing_from: Option<u64>,
}

/// The writer, which goes on after the records that were found.
#[derive(Debug)]
pub(super) struct Journal {
    directory: PathBuf,
    last: u64,
    /// The first number of the growing file.
    first: u64,
    /// Opened at the first write, and again after an error.
    file: Option<File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FileState {
    Open,
    Full,
}

#[derive(Debug)]
struct FoundFile {
    first: u64,
    state: FileState,
    contents: Vec<Content>,
}

/// Reads all files and judges them; changes nothing.
pub(super) fn verify(directory: &Path, guest: u64) -> io::Result<Found> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let Some((first, state)) = name.to_str().and_then(parse_name) else {
            continue;
        };
        let bytes = fs::read(directory.join(name))?;
        let pieces = bytes.chunks(RECORD_BYTES);
        let contents = match state {
            FileState::Full => pieces.map(Content::of).collect(),
            // A short end was being appended.
            FileState::Open => pieces
                .filter(|piece| piece.len() == RECORD_BYTES)
                .map(Content::of)
                .collect(),
        };
        files.push(FoundFile {
            first,
            state,
            contents,
        });
    }
    files.sort_unstable_by_key(|file| (file.first, file.state));
    Ok(judge(&files, guest))
}

fn judge(files: &[FoundFile], guest: u64) -> Found {
    let mut found = Found::default();
    for (position, file) in (1..).zip(files) {
        let grows = file.state == FileState::Open && position == files.len();
        if position > 1 && file.first != found.last + 1 {
            found.gaps += 1;
            found.note(|last| format!("file {} follows record {last}", file.first));
        }
        found.last = file.first.saturating_sub(1);
        let records = file.contents.len();
        for (place, content) in (1..).zip(&file.contents) {
            let expected = found.last + 1;
            match content {
                Content::Record(record)
                    if record.number == expected
                        && record.guest == guest
                        && record.stream == Stream::Journal =>
                {
                    found.last = expected;
                }
                Content::Record(record) => {
                    found.gaps += 1;
                    found.note(|last| {
                        format!("record {} of {:?} follows {last}", record.number, record.stream)
                    });
                }
                Content::Empty if grows && place == records => {}
                Content::Empty | Content::Damaged => {
                    found.torn += 1;
                    found.note(|last| format!("no whole record follows {last}"));
                }
            }
        }
        if grows {
            found.growing_from = Some(file.first);
        } else if u64::try_from(records) != Ok(RECORDS_PER_FILE) {
            found.gaps += 1;
            found.note(|_| format!("file {} has {records} records", file.first));
        }
    }
    found
}

impl Found {
    fn note(&mut self, fault: impl FnOnce(u64) -> String) {
        let last = self.last;
        self.first_fault
            .get_or_insert_with(|| format!("journal: {}", fault(last)));
    }
}

impl Journal {
    /// A writer that goes on after what was found; none if that was not right.
    pub(super) fn after(found: &Found, directory: &Path) -> Option<Self> {
        let first = found.growing_from.unwrap_or(found.last + 1);
        found.first_fault.is_none().then(|| Self {
            directory: directory.to_owned(),
            last: found.last,
            first,
            file: None,
        })
    }

    pub(super) fn append_for_ever(mut self, maker: RecordMaker, mut pace: Pace, progress: &Progress) {
        loop {
            let number = self.last + 1;
            let page = maker.make(number, Stream::Journal).encode();
            let appended = progress.record(Stream::Journal, number, || self.append(page.bytes()));
            if appended.is_err() {
                thread::sleep(AFTER_AN_ERROR);
            }
            pace.wait();
        }
    }

    fn append(&mut self, record: &[u8]) -> io::Result<()> {
        if self.last + 1 - self.first == RECORDS_PER_FILE {
            self.finish_file()?;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open_file()?,
        };
        file.write_all(record)?;
        file.sync_all()?;
        self.file = Some(file);
        self.last += 1;
        Ok(())
    }

    /// The growing file, cut to its whole records.
    fn open_file(&self) -> io::Result<File> {
        let path = name_of(&self.directory, self.first, FileState::Open);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.set_len((self.last + 1 - self.first) * RECORD_LENGTH)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the rename of a synced file is what this workload exercises"
    )]
    fn finish_file(&mut self) -> io::Result<()> {
        self.file = None;
        let full = name_of(&self.directory, self.first, FileState::Full);
        fs::rename(name_of(&self.directory, self.first, FileState::Open), &full)?;
        self.first = self.last + 1;
        if let Some(old) = self.first.checked_sub((FILES_KEPT + 1) * RECORDS_PER_FILE) {
            match fs::remove_file(name_of(&self.directory, old, FileState::Full)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        sync_directory_of(&full)
    }
}

fn name_of(directory: &Path, first: u64, state: FileState) -> PathBuf {
    let ending = match state {
        FileState::Open => "open",
        FileState::Full => "log",
    };
    directory.join(format!("{first:012}.{ending}"))
}

fn parse_name(name: &str) -> Option<(u64, FileState)> {
    let (first, ending) = name.split_once('.')?;
    let state = match ending {
        "open" => FileState::Open,
        "log" => FileState::Full,
        _ => return None,
    };
    Some((first.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAKER: RecordMaker = RecordMaker { run: 1, guest: 7 };

    fn append(directory: &Path, count: u64) -> u64 {
        let found = verify(directory, MAKER.guest).unwrap();
        let mut journal = Journal::after(&found, directory).unwrap();
        for _ in 0..count {
            let page = MAKER.make(journal.last + 1, Stream::Journal).encode();
            journal.append(page.bytes()).unwrap();
        }
        journal.last
    }

    #[test]
    fn a_journal_goes_on_over_any_number_of_boots() {
        let directory = tempfile::tempdir().unwrap();
        let mut last = 0;
        for count in [1, 31, 1, 0, 63, 32, 7] {
            last += count;
            assert_eq!(append(directory.path(), count), last);
            let found = verify(directory.path(), MAKER.guest).unwrap();
            assert_eq!((found.last, found.torn, found.gaps), (last, 0, 0), "{found:?}");
        }
    }

    #[test]
    fn old_files_go_and_the_rest_is_still_right() {
        let directory = tempfile::tempdir().unwrap();
        append(directory.path(), 67 * RECORDS_PER_FILE + 1);
        let files = fs::read_dir(directory.path()).unwrap().count();
        assert!(u64::try_from(files).unwrap() <= FILES_KEPT + 2, "{files}");
        assert_eq!(verify(directory.path(), MAKER.guest).unwrap().first_fault, None);
    }

    #[test]
    fn an_append_that_was_cut_short_is_no_fault_and_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        for tail in [100, RECORD_BYTES] {
            let last = append(directory.path(), 3);
            let path = name_of(directory.path(), 1, FileState::Open);
            let mut bytes = fs::read(&path).unwrap();
            bytes.resize(bytes.len() + tail, 0);
            fs::write(&path, bytes).unwrap();
            let found = verify(directory.path(), MAKER.guest).unwrap();
            assert_eq!((found.last, found.first_fault), (last, None), "tail {tail}");
        }
        assert_eq!(append(directory.path(), 1), 7);
        assert_eq!(verify(directory.path(), MAKER.guest).unwrap().first_fault, None);
    }

    #[test]
    fn damage_and_loss_are_seen_and_nothing_more_is_written() {
        let damage: [fn(&Path); 4] = [
            |directory| fs::remove_file(name_of(directory, 33, FileState::Full)).unwrap(),
            |directory| {
                let path = name_of(directory, 33, FileState::Full);
                let mut bytes = fs::read(&path).unwrap();
                bytes[5 * RECORD_BYTES + 9] ^= 1;
                fs::write(path, bytes).unwrap();
            },
            |directory| {
                let path = name_of(directory, 65, FileState::Open);
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[RECORD_BYTES..]).unwrap();
            },
            |directory| {
                let path = name_of(directory, 1, FileState::Full);
                OpenOptions::new()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_len(100)
                    .unwrap();
            },
        ];
        for (number, harm) in damage.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            append(directory.path(), 70);
            harm(directory.path());
            let found = verify(directory.path(), MAKER.guest).unwrap();
            assert!(found.torn + found.gaps > 0, "harm {number}: {found:?}");
            assert!(Journal::after(&found, directory.path()).is_none());
        }
    }
}
