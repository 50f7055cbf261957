//! A scan that is compared with what the target holds goes by whole blocks, as hashes do: a block with any data in it is read,
//! and the rest is zero.

use farshore_blocks::{ByteCount, ByteOffset, Extent, whole_blocks};
use farshore_provider::{StateOfBytes, StatedExtent};

/// The whole volume of `size`, in order and in whole blocks, of whose extents `scanned` are known.
pub(super) fn in_whole_blocks(scanned: &[StatedExtent], size: ByteCount) -> Vec<StatedExtent> {
    let mut stated = Vec::new();
    let mut through = ByteOffset(0);
    let data = scanned.iter().filter(|stated| stated.state == StateOfBytes::Data);
    for grown in data.filter_map(|stated| whole_blocks(stated.extent, size)) {
        push(&mut stated, between(through, grown.start()), StateOfBytes::Zero);
        let rest = between(grown.start().max(through), grown.end());
        push(&mut stated, rest, StateOfBytes::Data);
        through = through.max(grown.end());
    }
    push(
        &mut stated,
        between(through, ByteOffset(size.0)),
        StateOfBytes::Zero,
    );
    stated
}

fn between(start: ByteOffset, end: ByteOffset) -> Option<Extent> {
    Extent::new(start, ByteCount(end.0.checked_sub(start.0)?))
}

/// Neighbours of one state are joined.
fn push(stated: &mut Vec<StatedExtent>, extent: Option<Extent>, state: StateOfBytes) {
    let Some(extent) = extent else { return };
    if let Some(last) = stated.last_mut()
        && last.state == state
        && last.extent.end() == extent.start()
        && let Some(joined) = between(last.extent.start(), extent.end())
    {
        last.extent = joined;
        return;
    }
    stated.push(StatedExtent { extent, state });
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 65536;

    fn stated(start: u64, end: u64, state: StateOfBytes) -> StatedExtent {
        StatedExtent {
            extent: between(ByteOffset(start), ByteOffset(end)).unwrap(),
            state,
        }
    }

    #[test]
    fn a_block_with_any_data_is_read_whole_and_all_else_is_zero() {
        use StateOfBytes::{Data, Zero};
        let scanned = [
            stated(0, 4096, Data),
            stated(4096, 2 * BLOCK + 100, Zero),
            stated(2 * BLOCK + 100, 2 * BLOCK + 200, Data),
            stated(2 * BLOCK + 200, 3 * BLOCK - 1, Zero),
            stated(3 * BLOCK - 1, 3 * BLOCK + 1, Data),
            stated(3 * BLOCK + 1, 5 * BLOCK + 7, Zero),
        ];
        assert_eq!(
            in_whole_blocks(&scanned, ByteCount(5 * BLOCK + 7)),
            [
                stated(0, BLOCK, Data),
                stated(BLOCK, 2 * BLOCK, Zero),
                stated(2 * BLOCK, 4 * BLOCK, Data),
                stated(4 * BLOCK, 5 * BLOCK + 7, Zero),
            ]
        );
    }

    #[test]
    fn the_last_block_ends_with_the_volume() {
        let scanned = [stated(BLOCK, BLOCK + 5, StateOfBytes::Data)];
        assert_eq!(
            in_whole_blocks(&scanned, ByteCount(BLOCK + 10)),
            [
                stated(0, BLOCK, StateOfBytes::Zero),
                stated(BLOCK, BLOCK + 10, StateOfBytes::Data)
            ]
        );
    }
}
