//! Reading a point through the export process, beside nbdkit serving a file of the same content.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;

use super::prepared;
use crate::{
    chain::{Chain, Change},
    comparison::{Aim, Row, in_turns},
    figures::Samples,
    nbd_peers::Server,
    noise::Noise,
    process::peak_resident_bytes,
    random_reads::RandomReads,
};

const VOLUME_BYTES: u64 = 1 << 30;
const ROUNDS: usize = 7;
const DEPTH: u32 = 32;
/// One takes so little time that anything else on the machine would decide it.
const COPIES_PER_FIGURE: u32 = 3;
const READING: Duration = Duration::from_secs(2);
/// For points and blocks that change in each of them.
const POINTS: u64 = 1000;
const BLOCKS_PER_POINT: usize = 64;
const SEQUENTIAL: Aim = Aim::RatioAtLeast(0.8);
const RANDOM: Aim = Aim::RatioAtLeast(0.5);
const BESIDE: &str = "nbdkit file, raw";

/// A vault and a raw file that hold the same volume.
struct Twins {
    vault: PathBuf,
    raw: PathBuf,
}

pub(crate) fn rows(directory: &Path) -> anyhow::Result<Vec<Row>> {
    let one = Twins::build(&directory.join("one"), 0)?;
    let mut rows = vec![one.sequential(SEQUENTIAL, "sequential by nbdcopy: 1 point")?];
    one.remove()?;
    let many = Twins::build(&directory.join("many"), POINTS)?;
    rows.push(many.sequential(Aim::None, "the same: 1,000 points of 64 blocks more")?);
    rows.extend(many.random(RANDOM, "4 KiB at random, 32 at a time: those 1,001 points")?);
    rows.extend(many.server_alone()?);
    many.remove()?;
    Ok(rows)
}

impl Twins {
    /// Incompressible data everywhere in the first point, then so many points of random changes.
    fn build(place: &Path, points: u64) -> anyhow::Result<Self> {
        fs::create_dir(place)?;
        let raw = place.join("raw");
        let mut noise = Noise::new(4);
        let vault = prepared(place.join("vault"), 3 << 30, |vault| {
            let whole = Bytes::from(noise.bytes(usize::try_from(VOLUME_BYTES)?));
            fs::write(&raw, &whole)?;
            let file = File::options().write(true).open(&raw)?;
            let mut chain = Chain::create(vault, VOLUME_BYTES)?;
            chain.add_point(&Change::sequential(0, &whole)?)?;
            for _ in 0..points {
                let change = Change::scattered(&mut noise, VOLUME_BYTES, BLOCKS_PER_POINT)?;
                for frame in change.messages.iter().flatten() {
                    file.write_all_at(frame.payload(), frame.extent().start().0)?;
                }
                chain.add_point(&change)?;
            }
            Ok(file.sync_all()?)
        })?;
        let twins = Self { vault, raw };
        // This also brings both into the page cache.
        twins.point()?.expect_same(&twins.raw)?;
        twins.nbdkit()?.expect_same(&twins.raw)?;
        Ok(twins)
    }

    fn place(&self) -> &Path {
        self.raw.parent().unwrap_or(&self.raw)
    }

    fn point(&self) -> anyhow::Result<Server> {
        Server::of_point(&self.vault, self.place())
    }

    fn nbdkit(&self) -> anyhow::Result<Server> {
        Server::nbdkit(&self.raw, self.place())
    }

    fn sequential(&self, aim: Aim, what: &str) -> anyhow::Result<Row> {
        compare(&self.point()?, &self.nbdkit()?, what, aim, Way::Sequential)
    }

    fn random(&self, aim: Aim, what: &str) -> anyhow::Result<[Row; 2]> {
        let (ours, theirs) = (self.point()?, self.nbdkit()?);
        let read = compare(&ours, &theirs, what, aim, Way::Random)?;
        let mut peak = Samples::default();
        peak.add(peak_resident_bytes(ours.process.pid())? as f64 / (1024.0 * 1024.0));
        let memory = Row::alone("the export process of it, peak memory", "MiB", Aim::None, peak);
        Ok([read, memory])
    }

    /// The same server on the raw file: what is left of the difference is the vault's.
    fn server_alone(&self) -> anyhow::Result<[Row; 2]> {
        let (ours, theirs) = (Server::of_file(&self.raw, self.place())?, self.nbdkit()?);
        ours.expect_same(&self.raw)?;
        let sequential = "our server on the raw file, sequential";
        let random = "our server on the raw file, at random";
        Ok([
            compare(&ours, &theirs, sequential, SEQUENTIAL, Way::Sequential)?,
            compare(&ours, &theirs, random, RANDOM, Way::Random)?,
        ])
    }

    fn remove(self) -> anyhow::Result<()> {
        Ok(fs::remove_dir_all(self.place())?)
    }
}

/// How to read.
#[derive(Debug, Clone, Copy)]
enum Way {
    Sequential,
    Random,
}

fn compare(ours: &Server, theirs: &Server, what: &str, aim: Aim, way: Way) -> anyhow::Result<Row> {
    let unit = match way {
        Way::Sequential => "GB/s",
        Way::Random => "1/s",
    };
    let mut row = Row::beside(what, unit, aim, BESIDE);
    let mut seed = 0;
    let mut figure = |server: &Server| -> anyhow::Result<f64> {
        match way {
            Way::Sequential => {
                let mut seconds = 0.0;
                for _ in 0..COPIES_PER_FIGURE {
                    seconds += server.read_all()?.as_secs_f64();
                }
                Ok(f64::from(COPIES_PER_FIGURE) * VOLUME_BYTES as f64 / 1e9 / seconds)
            }
            Way::Random => {
                seed += 1;
                RandomReads::connect(&server.socket, server.export, seed)?.per_second(DEPTH, READING)
            }
        }
    };
    // Once for both without counting: threads are started, memory is mapped.
    for server in [ours, theirs] {
        figure(server)?;
    }
    let figure = std::cell::RefCell::new(figure);
    in_turns(
        ROUNDS,
        || (figure.borrow_mut())(ours),
        || (figure.borrow_mut())(theirs),
        |pair| row.add(pair),
    )?;
    Ok(row)
}
