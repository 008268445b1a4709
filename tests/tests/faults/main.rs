//! Faults under load: processes that die or freeze, networks that are cut, resources that run out.
//!
//! Some tests take a network or a file system of their own. That namespace belongs to the thread of the test and to the
//! processes which that thread starts, so tests beside it do not see it.

mod descriptors;
mod exhaustion;
mod partitions;
mod random_faults;
mod under_load;
