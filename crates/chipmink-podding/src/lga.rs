//! The greedy policies that weigh volatility against size.
//!
//! Chipmink (PVLDB 19(4), 2025), §5: putting object u into a pod costs s(pod)·λ(u) + s(u)·(λ(pod) + λ(u)) expected bytes
//! per save, since a change of either rewrites both; a pod of its own costs c_pod + s(u)·λ(u). The cheaper one is taken.
//! s(u) is the immediate size, λ(pod) the plain sum over the objects in it (the equation as printed has no cap).

use crate::{Candidate, Decision, OpenPod, Policy};

/// c_pod: what a pod costs beyond its bytes, in bytes (§5.1 of the paper).
pub const POD_COST: f64 = 1200.0;

/// No pod lies deeper than this below the pod of its variable (§5.3 of the paper).
pub const MAX_POD_DEPTH: u32 = 3;

/// Children of a container with fewer than this many do not begin a sibling of their own.
const FEW_PEERS: u64 = 32;

/// How many times the cost of a pod such children may cost.
const TOLERANCE: f64 = 8.0;

/// What adding `candidate` to `pod` costs beyond what the candidate costs anywhere.
fn excess(candidate: &Candidate, pod: &OpenPod) -> f64 {
    let (size, rate) = (candidate.byte_len as f64, f64::from(candidate.volatility));
    pod.byte_len as f64 * rate + size * f64::from(pod.rate)
}

/// Whether adding `candidate` to `pod` costs no more than a pod of its own.
///
/// s(u)·λ(u) stands on both sides and is left out.
fn fits(candidate: &Candidate, pod: &OpenPod) -> bool {
    excess(candidate, pod) <= POD_COST
}

/// The greedy policy as the paper prints it.
///
/// Once a pod has passed c_pod / λ bytes, every further volatile object below it gets a pod of its own, however small:
/// 200,000 dataclasses become 200,000 pods. [`LgaSiblings`] is the remedy; this one is for comparison.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lga;

impl Policy for Lga {
    fn name(&self) -> &'static str {
        "lga"
    }

    fn decide(&mut self, candidate: &Candidate, pod: &OpenPod, _: Option<&OpenPod>) -> Decision {
        if fits(candidate, pod) {
            Decision::Bundle
        } else if pod.depth + 1 >= MAX_POD_DEPTH {
            Decision::SplitFinal
        } else {
            Decision::SplitContinue
        }
    }
}

/// The greedy policy with open siblings: where [`Lga`] would split, the object joins the pod that its container keeps
/// open for such children, as long as that costs less than a pod of its own; else it begins the next one.
///
/// With equal children this makes pods of about c_pod / 2λ bytes instead of one pod for each child.
#[derive(Clone, Copy, Debug, Default)]
pub struct LgaSiblings;

impl Policy for LgaSiblings {
    fn name(&self) -> &'static str {
        "lga-siblings"
    }

    fn decide(&mut self, candidate: &Candidate, pod: &OpenPod, sibling: Option<&OpenPod>) -> Decision {
        // Below the depth limit everything is bundled, which is what a final split means for each object in turn.
        if pod.depth >= MAX_POD_DEPTH || fits(candidate, pod) {
            return Decision::Bundle;
        }
        // A container with few small children would fill no sibling: they stay, within reason. The pod ends soon, at the
        // next child of a larger container. Measured on a graph of 50,000 nodes: 43,762 pods without this, 1,100 with it.
        let is_small = (candidate.byte_len as f64) < POD_COST;
        if is_small && candidate.peers < FEW_PEERS && excess(candidate, pod) < TOLERANCE * POD_COST {
            return Decision::Bundle;
        }
        match sibling {
            Some(sibling) if fits(candidate, sibling) => Decision::JoinSibling,
            _ => Decision::NewSibling,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectKind;
    use proptest::prelude::*;

    fn candidate(byte_len: u64, volatility: f32) -> Candidate {
        Candidate {
            ordinal: 0,
            kind: ObjectKind::Instance,
            byte_len,
            len: 0,
            dict_len: 5,
            peers: 1000,
            volatility,
        }
    }

    /// The paper's two costs, written out in full.
    fn costs(u: &Candidate, pod: &OpenPod) -> (f64, f64) {
        let (s_u, l_u) = (u.byte_len as f64, f64::from(u.volatility));
        let (s_pod, l_pod) = (pod.byte_len as f64, f64::from(pod.rate));
        (s_pod * l_u + s_u * (l_pod + l_u), POD_COST + s_u * l_u)
    }

    proptest! {
        #[test]
        fn lga_takes_the_cheaper_side_of_the_papers_equation(
            byte_len in 0u64..1 << 20, volatility in 0f32..=1.0, pod_len in 0u64..1 << 24, rate in 0f32..100.0, depth in 0u32..6,
        ) {
            let (u, pod) = (candidate(byte_len, volatility), OpenPod { byte_len: pod_len, rate, depth });
            let (bundle, split) = costs(&u, &pod);
            prop_assume!((bundle - split).abs() > 1e-6 * (bundle + split));
            let expected = match (bundle < split, depth + 1 >= MAX_POD_DEPTH) {
                (true, _) => Decision::Bundle,
                (false, false) => Decision::SplitContinue,
                (false, true) => Decision::SplitFinal,
            };
            prop_assert_eq!(Lga.decide(&u, &pod, None), expected);
        }
    }

    #[test]
    fn stable_objects_are_bundled_into_a_stable_pod_of_any_size() {
        let pod = OpenPod { byte_len: 1 << 40, rate: 0.0, depth: 0 };
        assert_eq!(Lga.decide(&candidate(1 << 30, 0.0), &pod, None), Decision::Bundle);
        assert_eq!(LgaSiblings.decide(&candidate(1 << 30, 0.0), &pod, None), Decision::Bundle);
    }

    #[test]
    fn a_pods_own_size_is_no_cost_of_splitting_alone() {
        let empty = OpenPod::default();
        assert_eq!(LgaSiblings.decide(&candidate(1 << 40, 1.0), &empty, None), Decision::Bundle);
    }

    /// Feeds equal children to the policy as a walk would, and counts the pods.
    fn pods_of_equal_children(policy: &mut dyn Policy, children: u32) -> u32 {
        let mut pod = OpenPod { byte_len: 64, rate: 0.1, depth: 0 };
        let (mut sibling, mut pods) = (None::<OpenPod>, 1);
        let child = candidate(60, 0.1);
        for _ in 0..children {
            let target = match policy.decide(&child, &pod, sibling.as_ref()) {
                Decision::Bundle => &mut pod,
                Decision::JoinSibling => sibling.as_mut().expect("only an open sibling is joined"),
                Decision::NewSibling => {
                    pods += 1;
                    sibling.insert(OpenPod { depth: 1, ..OpenPod::default() })
                }
                Decision::SplitContinue | Decision::SplitFinal => {
                    pods += 1;
                    pod.byte_len += 5;
                    continue;
                }
            };
            target.byte_len += child.byte_len;
            target.rate += child.volatility;
        }
        pods
    }

    #[test]
    fn siblings_save_a_volatile_parent_from_one_pod_per_child() {
        assert!(pods_of_equal_children(&mut Lga, 200_000) > 199_000);
        let pods = pods_of_equal_children(&mut LgaSiblings, 200_000);
        assert!((1_500..3_000).contains(&pods), "{pods} pods");
    }

    #[test]
    fn nothing_is_cut_below_the_depth_limit() {
        let deep = OpenPod { byte_len: 1 << 30, rate: 50.0, depth: MAX_POD_DEPTH };
        assert_eq!(LgaSiblings.decide(&candidate(1 << 20, 1.0), &deep, None), Decision::Bundle);
        assert_eq!(Lga.decide(&candidate(1 << 20, 1.0), &deep, None), Decision::SplitFinal);
    }
}
