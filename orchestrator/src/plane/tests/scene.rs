//! A control plane, its scripted replicators and a user, as most tests need them.

use tokio::task::JoinSet;

use super::*;

/// All of them; they end with the value, or in order by [`Scene::end`].
pub(super) struct Scene {
    pub(super) world: Scripted,
    pub(super) user: User,
    plane: Running,
    _replicators: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Scene {
    /// With replicators of this world.
    pub(super) async fn of(world: Scripted) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let plane = Running::start(directory.path()).await;
        let replicators = attach(plane.address, &world);
        let user = User::connect(plane.address).await;
        Self {
            world,
            user,
            plane,
            _replicators: replicators,
            _directory: directory,
        }
    }

    /// With a VM that is declared so, and protected; the job that protected it has ended.
    pub(super) async fn protecting(manifest: &str) -> Self {
        let scene = Self::of(Scripted::new()).await;
        let applied = scene.user.apply("", manifest).await.unwrap();
        let job = applied.iter().find(|applied| !applied.job.is_empty());
        scene.user.watch_job(&job.unwrap().job).await;
        scene.user.vm_in(ProtectionState::Protected).await;
        scene
    }

    pub(super) async fn end(self) {
        self.plane.stop().await;
    }
}
