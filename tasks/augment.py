"""Stage 2, augment: build the policy, try it on real images, show a preview."""

from __future__ import annotations

from recognition import tracking
from recognition.experiment import Augmentation
from recognition.records import Policy, PreparedData
from recognition.settings import run_folder
from tasks.isolation import run_isolated
from tasks.reporting import image_artifact
from tasks.stage import stage
from tasks.watching import watching


@stage("augment")
def augment(run_id: str, data: PreparedData, augmentation: Augmentation, seed: int) -> Policy:
    """Check the augmentation policy on the run's images and record it with a preview."""
    folder = run_folder(run_id) / "augmentation"
    with watching(run_id, "augment") as emit:
        policy: Policy = run_isolated("recognition.policies:augment", data, augmentation, seed, folder, on_event=emit)
    tracking.log_folder(run_id, folder, "augmentation")
    tracking.log_tags(
        run_id, {"augmentation.policy": policy.name, "augmentation.transforms": ", ".join(policy.transforms)}
    )
    image_artifact("augmentation-preview", policy.preview, "Originals above, augmented below")
    return policy
