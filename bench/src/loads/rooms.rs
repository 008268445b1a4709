//! Which connections are members of which group, and which members have got which publish.

use std::collections::VecDeque;

/// Groups of the same size, over all connections: each begins at the connection of its own number, and goes round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rooms {
    pub(crate) conns: usize,
    pub(crate) groups: usize,
    pub(crate) members: usize,
    /// A publish goes to all members but the publisher.
    pub(crate) others: bool,
}

impl Rooms {
    /// The group of a publish: groups take turns.
    pub(crate) fn group(&self, number: u32) -> usize {
        number as usize % self.groups
    }

    /// The connection that publishes to a group; it is a member.
    pub(crate) fn publisher(&self, group: usize) -> usize {
        group % self.conns
    }

    /// The groups of a connection.
    pub(crate) fn of(&self, conn: usize) -> impl Iterator<Item = usize> {
        let rooms = *self;
        (0..rooms.members.min(rooms.conns)).flat_map(move |place| {
            let first = (conn + rooms.conns - place) % rooms.conns;
            (first..rooms.groups).step_by(rooms.conns)
        })
    }

    /// How many members get a publish.
    fn audience(&self) -> usize {
        self.members - usize::from(self.others)
    }

    /// A connection's place among the members of a group, if it gets what is published there.
    fn place(&self, conn: usize, group: usize) -> Option<usize> {
        let place = (conn + self.conns - self.publisher(group)) % self.conns;
        (usize::from(self.others)..self.members)
            .contains(&place)
            .then_some(place)
    }
}

/// Which members have got which publishes.
#[derive(Debug)]
pub(crate) struct Deliveries {
    rooms: Rooms,
    /// Publishes to its group that each member has got: all members of group 0, then of group 1 and so on.
    rounds: Vec<u32>,
    /// Members that have not got a publish yet: one number for each publish from `first` on.
    missing: VecDeque<u32>,
    pub(crate) first: u32,
    pub(crate) reordered: u64,
}

impl Deliveries {
    pub(crate) fn new(rooms: Rooms) -> Self {
        Self {
            rooms,
            rounds: vec![0; rooms.groups * rooms.members],
            missing: VecDeque::new(),
            first: 0,
            reordered: 0,
        }
    }

    /// Publishes that some member has not got yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.missing.len()
    }

    /// The number of the next publish.
    pub(crate) fn next(&self) -> u32 {
        self.first + self.missing.len() as u32
    }

    /// Counts a new publish.
    pub(crate) fn publish(&mut self) {
        self.missing.push_back(self.rooms.audience() as u32);
    }

    /// A connection has got a message.
    pub(crate) fn deliver(&mut self, conn: usize, number: u32) {
        let group = self.rooms.group(number);
        let Some(place) = self.rooms.place(conn, group) else {
            self.reordered += 1;
            return;
        };
        let expected = &mut self.rounds[group * self.rooms.members + place];
        let round = number / self.rooms.groups as u32;
        if round != *expected {
            self.reordered += 1;
        }
        *expected = (*expected).max(round.saturating_add(1));
        let place = number.wrapping_sub(self.first) as usize;
        if let Some(missing) = self.missing.get_mut(place) {
            *missing = missing.saturating_sub(1);
        }
        while self.missing.front() == Some(&0) {
            self.missing.pop_front();
            self.first += 1;
        }
    }

    /// Deliveries that have not come.
    pub(crate) fn lost(&self) -> u64 {
        self.missing.iter().map(|missing| u64::from(*missing)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_room(members: usize) -> Deliveries {
        Deliveries::new(Rooms {
            conns: members,
            groups: 1,
            members,
            others: false,
        })
    }

    fn publish(deliveries: &mut Deliveries) -> u32 {
        deliveries.publish();
        deliveries.next() - 1
    }

    #[test]
    fn a_publish_is_done_when_all_members_have_it() {
        let mut deliveries = one_room(2);
        assert_eq!((publish(&mut deliveries), publish(&mut deliveries)), (0, 1));
        for (member, number, in_flight, lost) in [(0, 0, 2, 3), (0, 1, 2, 2), (1, 0, 1, 1), (1, 1, 0, 0)] {
            deliveries.deliver(member, number);
            assert_eq!((deliveries.in_flight(), deliveries.lost()), (in_flight, lost));
        }
        assert_eq!(publish(&mut deliveries), 2);
        assert_eq!(deliveries.reordered, 0);
    }

    #[test]
    fn gaps_and_repetitions_are_seen() {
        let mut deliveries = one_room(1);
        for _ in 0..3 {
            publish(&mut deliveries);
        }
        deliveries.deliver(0, 1);
        assert_eq!((deliveries.reordered, deliveries.lost()), (1, 2));
        deliveries.deliver(0, 2);
        deliveries.deliver(0, 2);
        deliveries.deliver(0, u32::MAX);
        assert_eq!((deliveries.reordered, deliveries.lost()), (3, 1));
    }

    #[test]
    fn groups_go_round() {
        for (conns, groups, members) in [(5, 7, 2), (7, 5, 3), (4, 4, 4), (3, 1, 3)] {
            let rooms = Rooms {
                conns,
                groups,
                members,
                others: false,
            };
            let mut sizes = vec![0; groups];
            for conn in 0..conns {
                for group in rooms.of(conn) {
                    assert!(rooms.place(conn, group).is_some(), "{conn} in {group} of {rooms:?}");
                    sizes[group] += 1;
                }
            }
            assert_eq!(sizes, vec![members; groups], "{rooms:?}");
        }
    }

    #[test]
    fn each_group_has_an_order_of_its_own() {
        let rooms = Rooms {
            conns: 3,
            groups: 3,
            members: 2,
            others: false,
        };
        let mut deliveries = Deliveries::new(rooms);
        for _ in 0..6 {
            publish(&mut deliveries);
        }
        // Connection 1 is in groups 0 and 1.
        for number in [1, 0, 4, 3] {
            deliveries.deliver(1, number);
        }
        assert_eq!((deliveries.reordered, deliveries.lost()), (0, 8));
        deliveries.deliver(1, 2);
        assert_eq!(deliveries.reordered, 1, "it is not a member");
    }

    #[test]
    fn who_talks_to_the_others_gets_nothing_back() {
        let mut deliveries = Deliveries::new(Rooms {
            conns: 3,
            groups: 2,
            members: 3,
            others: true,
        });
        let first = publish(&mut deliveries);
        for conn in [1, 2] {
            assert_eq!(deliveries.in_flight(), 1);
            deliveries.deliver(conn, first);
        }
        assert_eq!((deliveries.in_flight(), deliveries.reordered), (0, 0));
        let second = publish(&mut deliveries);
        deliveries.deliver(0, second);
        deliveries.deliver(1, second);
        assert_eq!((deliveries.in_flight(), deliveries.reordered), (1, 1));
    }
}
