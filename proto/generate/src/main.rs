//! Writes the generated code of `meepo-proto` anew.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    meepo_proto_generate::generate(&meepo_proto_generate::generated())
}
