//! Which dead letters are settled: replayed, or dropped by hand.
//!
//! Letters are settled in any order, so the keeper's cursor alone cannot say it. What is settled beyond the cursor is kept as
//! facts of the dead-letter journal, one for each 1,024 letters in which any is: `s` and the number of the block (u64 BE) →
//! two bits a letter, or the runs of equal ones where that is shorter. So a million letters that are settled one here, one there
//! cost 250 KiB, and the same settled in a row some bytes. Once the cursor is past a block its fact goes; a fact that a crash
//! leaves behind the cursor says nothing.

use std::collections::BTreeMap;

use crate::journal::{Append, Done, DropReason, Journal, Offset};

/// Letters in one block.
const LETTERS: u64 = 1024;
/// Bytes of a block in which every letter has its two bits.
const BYTES: usize = 1024 / 4;
const PREFIX: &[u8] = b"s";

/// How a block is written: every letter's bits, or runs.
const PLAIN: u8 = 0;
const RUNS: u8 = 1;

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent again, and taken.
    Replayed = 1,
    /// Dropped by hand.
    Dropped = 2,
}

/// The fates of the letters in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Block([u8; BYTES]);

impl Block {
    const EMPTY: Self = Self([0; BYTES]);

    fn bits(&self, place: u64) -> u8 {
        let place = place % LETTERS;
        let byte = usize::try_from(place / 4).ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0);
        byte >> (place % 4 * 2) & 0b11
    }

    fn set(&mut self, place: u64, fate: Fate) {
        let place = place % LETTERS;
        if let Some(byte) = usize::try_from(place / 4).ok().and_then(|at| self.0.get_mut(at)) {
            *byte = *byte & !(0b11 << (place % 4 * 2)) | (fate as u8) << (place % 4 * 2);
        }
    }

    fn runs(&self) -> Vec<(u16, u8)> {
        let mut runs: Vec<(u16, u8)> = Vec::new();
        for place in 0..LETTERS {
            let bits = self.bits(place);
            match runs.last_mut() {
                Some((length, last)) if *last == bits => *length += 1,
                _ => runs.push((1, bits)),
            }
        }
        if runs.last().is_some_and(|(_, bits)| *bits == 0) {
            runs.pop();
        }
        runs
    }

    fn encode(&self) -> Vec<u8> {
        let runs = self.runs();
        if runs.len() * 2 < BYTES {
            let words = runs.iter().flat_map(|(length, bits)| (length << 2 | u16::from(*bits)).to_le_bytes());
            return std::iter::once(RUNS).chain(words).collect();
        }
        std::iter::once(PLAIN).chain(self.0).collect()
    }

    /// What cannot be read says that nothing is settled: such letters are there to be looked at again.
    fn decode(bytes: &[u8]) -> Self {
        let mut block = Self::EMPTY;
        match bytes.split_first() {
            Some((&PLAIN, rest)) if rest.len() == BYTES => block.0.copy_from_slice(rest),
            Some((&RUNS, rest)) => {
                let mut place = 0;
                for word in rest.as_chunks::<2>().0 {
                    let word = u16::from_le_bytes(*word);
                    let (length, bits) = (u64::from(word >> 2), word & 0b11);
                    let fate =
                        [None, Some(Fate::Replayed), Some(Fate::Dropped), None].get(usize::from(bits)).copied().flatten();
                    for at in place..(place + length).min(LETTERS) {
                        if let Some(fate) = fate {
                            block.set(at, fate);
                        }
                    }
                    place += length;
                }
            }
            _ => {}
        }
        block
    }
}

/// A look at what is settled, one block in memory at a time.
#[derive(Debug)]
pub(crate) struct Settled {
    journal: Journal,
    block: Option<(u64, Block)>,
}

impl Settled {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal, block: None }
    }

    /// What became of the letter at `offset`, durably; `None`: it waits.
    pub(crate) fn fate(&mut self, offset: Offset) -> Option<Fate> {
        let number = offset.0 / LETTERS;
        if self.block.as_ref().is_none_or(|(known, _)| *known != number) {
            self.block = Some((number, read(&self.journal, number)));
        }
        match self.block.as_ref().map(|(_, block)| block.bits(offset.0)) {
            Some(1) => Some(Fate::Replayed),
            Some(2) => Some(Fate::Dropped),
            _ => None,
        }
    }

    /// Forgets what it has looked up: something was settled.
    pub(crate) fn look_again(&mut self) {
        self.block = None;
    }
}

/// Letters that are about to be settled together, as the facts that say so.
#[derive(Debug, Default)]
pub(crate) struct Settling(BTreeMap<u64, Block>);

impl Settling {
    pub(crate) fn add(&mut self, journal: &Journal, offset: Offset, fate: Fate) {
        let number = offset.0 / LETTERS;
        self.0.entry(number).or_insert_with(|| read(journal, number)).set(offset.0, fate);
    }

    pub(crate) fn put(&self, append: &mut Append<'_>) {
        for (number, block) in &self.0 {
            append.put(&key(*number), &block.encode());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How many letters at or after `cursor` are settled.
pub(crate) fn ahead(journal: &Journal, cursor: Offset) -> Done {
    let mut done = Done::default();
    for (key, value) in journal.facts(PREFIX) {
        let Some(first) = number(&key).and_then(|number| number.checked_mul(LETTERS)) else { continue };
        let block = Block::decode(&value);
        for place in (0..LETTERS).filter(|place| first + place >= cursor.0) {
            match block.bits(place) {
                1 => done.delivered += 1,
                2 => *done.dropped.entry(DropReason::ByHand).or_default() += 1,
                _ => {}
            }
        }
    }
    done
}

/// The keys of the facts about blocks that end at or before `cursor`.
pub(crate) fn passed(journal: &Journal, cursor: Offset) -> Vec<Vec<u8>> {
    let ends = |key: &[u8]| number(key).and_then(|number| (number + 1).checked_mul(LETTERS));
    let keys = journal.facts(PREFIX).into_iter().map(|(key, _)| key);
    keys.filter(|key| ends(key).is_some_and(|end| end <= cursor.0)).collect()
}

fn read(journal: &Journal, number: u64) -> Block {
    journal.fact(&key(number)).map_or(Block::EMPTY, |bytes| Block::decode(&bytes))
}

fn key(number: u64) -> Vec<u8> {
    [PREFIX, &number.to_be_bytes()].concat()
}

fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(PREFIX)?.try_into().ok()?)).filter(|number| *number < u64::MAX / LETTERS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_settled_in_a_row_takes_some_bytes_and_what_is_not_two_bits_a_letter() {
        let mut row = Block::EMPTY;
        (0..LETTERS).for_each(|place| row.set(place, Fate::Replayed));
        assert_eq!(row.encode().len(), 3);
        let mut mixed = Block::EMPTY;
        (0..LETTERS).step_by(2).for_each(|place| mixed.set(place, Fate::Dropped));
        assert_eq!(mixed.encode().len(), 1 + BYTES);
        assert_eq!(Block::EMPTY.encode(), [RUNS]);
    }

    proptest! {
        #[test]
        fn a_block_is_read_back_as_it_was(fates in prop::collection::vec((0..LETTERS, any::<bool>()), 0..600)) {
            let mut block = Block::EMPTY;
            for (place, replayed) in fates {
                block.set(place, if replayed { Fate::Replayed } else { Fate::Dropped });
            }
            prop_assert_eq!(Block::decode(&block.encode()), block);
        }

        #[test]
        fn any_bytes_are_a_block(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Block::decode(&bytes);
        }
    }
}
