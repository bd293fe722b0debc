//! Whose turn it is: weights as a list to be gone through, and tables that keep values with their
//! endpoints.

use crate::hash::mix;

/// Entries of a schedule, at most; weights that would need more are rounded.
const SCHEDULE_MAX: u64 = 1000;

/// An order in which each index comes up as often as its weight says, as evenly as may be. Empty if
/// all weights are 0.
pub(crate) fn schedule(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights.iter().fold(0, |sum, weight| gcd(sum, *weight)).max(1);
    let mut weights: Vec<u64> = weights.iter().map(|it| u64::from(it / divisor)).collect();
    let sum: u64 = weights.iter().sum();
    if sum > SCHEDULE_MAX {
        // Nobody who has a weight loses all of it.
        for weight in weights.iter_mut().filter(|weight| **weight > 0) {
            *weight = (*weight * SCHEDULE_MAX / sum).max(1);
        }
    }
    let sum: i64 = weights.iter().sum::<u64>().cast_signed();
    // Each turn everybody gains its weight, and who has the most pays all of it.
    let mut credit = vec![0_i64; weights.len()];
    let turn = |_| {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight.cast_signed();
        }
        let candidates = credit.iter_mut().zip(&weights).enumerate().rev();
        let richest = candidates.filter(|(_, (_, weight))| **weight > 0);
        let (index, (credit, _)) = richest.max_by_key(|(_, (credit, _))| **credit)?;
        *credit -= sum;
        u32::try_from(index).ok()
    };
    (0..sum).filter_map(turn).collect()
}

fn gcd(one: u32, two: u32) -> u32 {
    if two == 0 { one } else { gcd(two, one % two) }
}

/// Sizes of tables: primes.
const SIZES: [usize; 5] = [251, 1021, 4093, 16_381, 65_537];

/// A table of Maglev ("Maglev: A Fast and Reliable Software Network Load Balancer", 3.4): each
/// place is an index, each index has places by its weight, and when one index goes, few other places
/// change. Names and not their order say which places they are.
pub(crate) fn maglev(names: &[(u64, u32)]) -> Box<[u32]> {
    let live: Vec<_> = names.iter().enumerate().filter(|(_, (_, weight))| *weight > 0).collect();
    if live.is_empty() {
        return Box::default();
    }
    let wanted = live.len() * 100;
    let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
    let heaviest = live.iter().map(|(_, (_, weight))| *weight).max().unwrap_or(1);
    let mut seats: Vec<Seat> = live
        .iter()
        .map(|(index, (name, weight))| Seat::new(*index, *name, *weight, size))
        .collect();
    seats.sort_by_key(|seat| seat.name);
    let mut table = vec![u32::MAX; size];
    let mut left = size;
    let mut round = 0_u64;
    while left > 0 {
        round += 1;
        for seat in &mut seats {
            // Who has half of the weight takes a place every second round.
            if seat.taken * u64::from(heaviest) >= round * u64::from(seat.weight) || left == 0 {
                continue;
            }
            seat.taken += 1;
            while table[seat.place] != u32::MAX {
                seat.place = (seat.place + seat.skip) % size;
            }
            table[seat.place] = seat.index;
            left -= 1;
        }
    }
    table.into()
}

/// One that takes places.
struct Seat {
    index: u32,
    name: u64,
    weight: u32,
    place: usize,
    skip: usize,
    taken: u64,
}

impl Seat {
    fn new(index: usize, name: u64, weight: u32, size: usize) -> Self {
        let of = |number: u64, size: usize| usize::try_from(number % size as u64).unwrap_or(0);
        Self {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            name,
            weight,
            place: of(mix(name), size),
            skip: of(mix(name ^ 0x5bd1_e995), size - 1) + 1,
            taken: 0,
        }
    }
}

/// A ring: each index has points on it by its weight, and a value belongs to the next point behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    /// With at least so many points, as far as there is room, and one for each that has a weight.
    pub(crate) fn new(names: &[(u64, u32)], least: u32) -> Self {
        let sum: u64 = names.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let least = u64::from(least).min(POINTS_MAX);
        let mut points = Vec::new();
        for (index, (name, weight)) in (0..).zip(names) {
            let count = (least * u64::from(*weight)).div_ceil(sum.max(1));
            let point = |turn: u64| mix(name ^ turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            points.extend((1..=count).map(|turn| (point(turn), index)));
        }
        points.sort_unstable();
        Self(points.into())
    }

    /// Who a hash belongs to, or so many points behind it.
    #[inline]
    pub(crate) fn at(&self, hash: u64, more: u64) -> Option<u32> {
        let first = self.0.partition_point(|(point, _)| *point < hash) as u64;
        let place = first.wrapping_add(more).checked_rem(self.0.len() as u64)?;
        self.0.get(usize::try_from(place).ok()?).map(|(_, index)| *index)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.len() * size_of::<(u64, u32)>()
    }
}

/// Points of a ring, at most, beside those that everybody has.
const POINTS_MAX: u64 = 65_536;

/// The place of a table that a number means.
#[inline]
pub(crate) fn pick(table: &[u32], number: u64) -> Option<u32> {
    let place = number.checked_rem(table.len() as u64)?;
    table.get(usize::try_from(place).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_exact_and_even() {
        assert_eq!(*schedule(&[1, 1]), [0, 1]);
        assert_eq!(*schedule(&[20, 80]), [1, 1, 0, 1, 1]);
        assert!(schedule(&[0, 0]).is_empty());
        assert_eq!(*schedule(&[0, 7]), [1]);
        let all = schedule(&[1, 33, 66]);
        assert_eq!(all.len(), 100);
        assert_eq!([0, 1, 2].map(|it| all.iter().filter(|at| **at == it).count()), [1, 33, 66]);
        let rounded = schedule(&[10_000, 9_999, 1]);
        assert!(rounded.len() <= 1000 && rounded.contains(&2));
    }

    #[test]
    fn a_table_is_fair_and_hardly_changes_when_one_goes() {
        let names: Vec<_> = (0..10_u64).map(|it| (mix(it), 1)).collect();
        let all = maglev(&names);
        assert_eq!(all.len(), 1021);
        for index in 0..10 {
            let places = all.iter().filter(|at| **at == index).count();
            assert!((102..=103).contains(&places), "{places}");
        }
        let fewer = maglev(&names[..9]);
        let moved = all.iter().zip(&fewer).filter(|(one, two)| **one != 9 && one != two).count();
        assert!(moved < 150, "{moved} of 1021 have moved that did not have to");
        let mut turned = names.clone();
        turned.reverse();
        let turned = maglev(&turned);
        assert!(all.iter().zip(&turned).all(|(one, two)| *one == 9 - two));
    }

    #[test]
    fn a_ring_is_about_fair_and_only_what_belonged_to_who_goes_moves() {
        let names: Vec<_> = (0..10_u64).map(|it| (mix(it + 1), 1)).collect();
        let (all, fewer) = (Ring::new(&names, 1024), Ring::new(&names[..9], 1024));
        let values = || (0..10_000_u64).map(|it| mix(it ^ 0x55));
        let mut counts = [0; 10];
        for value in values() {
            let (was, is) = (all.at(value, 0).unwrap(), fewer.at(value, 0).unwrap());
            counts[was as usize] += 1;
            // With fewer points each, some of those that stay are not there any more.
            assert!(is < 9);
        }
        assert!(counts.iter().all(|it| (600..1500).contains(it)), "{counts:?}");
        let moved = values().filter(|it| {
            let was = all.at(*it, 0).unwrap();
            was != 9 && Some(was) != fewer.at(*it, 0)
        });
        assert!(moved.count() < 1500);
        let heavy = Ring::new(&[(1, 3), (2, 1), (3, 0)], 1024);
        let of = |index| heavy.0.iter().filter(|(_, it)| *it == index).count();
        assert_eq!([of(0), of(1), of(2)], [768, 256, 0]);
        assert_eq!(Ring::new(&[], 1024).at(7, 0), None);
    }

    #[test]
    fn places_go_by_weight() {
        let table = maglev(&[(1, 3), (2, 1), (3, 0)]);
        let of = |index| table.iter().filter(|at| **at == index).count();
        assert!(of(0).abs_diff(3 * of(1)) <= 4 && of(2) == 0, "{} {}", of(0), of(1));
        assert!(maglev(&[(1, 0)]).is_empty());
        assert_eq!(pick(&[], 5), None);
    }
}
