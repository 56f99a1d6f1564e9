//! Lines in the blocks in which the programs read them.

use streamguard::batch::Block;

/// Lines in blocks of the size in which the programs read them.
pub(crate) fn blocks(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    const BLOCK_BYTES: usize = 256 << 10;
    let mut rest = lines;
    std::iter::from_fn(move || {
        let end = match rest.get(..BLOCK_BYTES) {
            Some(first) => memchr::memrchr(b'\n', first)? + 1,
            None => rest.len(),
        };
        let block = rest.split_off(..end)?;
        (!block.is_empty()).then_some(block)
    })
}

/// Takes lines into a block that was used before, as the programs do.
pub(crate) fn take(block: &mut Block, lines: &[u8]) {
    block.clear();
    block.lines.extend_from_slice(lines);
}
