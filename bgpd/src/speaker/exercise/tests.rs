use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_hostile_peer_harms_nobody(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        life(&bytes);
    }
}
