//! What the fault suites share: a lab of their own, traffic that never pauses, and pictures of a node's state
//! that can be compared.

pub mod bgp;
mod picture;
mod plugin;
mod rig;
mod scene;
mod traffic;

pub use picture::{Claims, Picture, claims, leftovers, picture, policy};
pub use plugin::{Answer, Call, call};
pub use rig::{Pod, Rig, wait};
pub use scene::{Watch, pictures, same_as, scene, scene_of};
pub use traffic::{Kind, Loss, Traffic};
