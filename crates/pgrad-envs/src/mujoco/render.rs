//! Pictures of a simulation, by MuJoCo's own renderer, without a window.

use super::Sim;
use mujoco_rs::prelude::{MjModel, MjtObjBase, MjvCamera};
use mujoco_rs::renderer::MjRenderer;
use pgrad_env::{Content, Picture};
use std::cell::RefCell;
use std::sync::Arc;

/// Pixels of a row, and rows: what every model's buffer has room for.
const SIZE: (u32, u32) = (480, 480);
/// The camera that Gymnasium's models have for films: it goes along.
const CAMERA: &str = "track";

/// What is missing when nothing can be drawn.
const NEEDS: &str = "MuJoCo draws through EGL, in software where there is no graphics card (Debian and \
    Ubuntu: `apt-get install libegl1 libgl1 libgl1-mesa-dri`)";

thread_local! {
    /// A drawing context belongs to its thread, and takes long to make.
    static RENDERER: RefCell<Option<(Arc<MjModel>, MjRenderer)>> = const { RefCell::new(None) };
}

/// The simulation as it stands.
///
/// # Errors
/// Why it cannot be drawn.
pub(super) fn picture(sim: &mut Sim) -> Result<Picture, String> {
    let frames_per_second = 1.0 / sim.dt();
    RENDERER.with_borrow_mut(|slot| {
        let model = sim.model();
        let (_, renderer) = match slot.take() {
            Some(kept) if Arc::ptr_eq(&kept.0, model) => slot.insert(kept),
            _ => {
                let made = renderer(model)?;
                slot.insert((Arc::clone(model), made))
            }
        };
        let failed = |e: &dyn std::fmt::Display| format!("the renderer failed: {e}");
        renderer.sync_data(sim.raw_mut()).map_err(|e| failed(&e))?;
        renderer.render().map_err(|e| failed(&e))?;
        let rgb = renderer.rgb_flat().unwrap_or_default().to_vec();
        Ok(Picture { frames_per_second, content: Content::Pixels { width: SIZE.0, height: SIZE.1, rgb } })
    })
}

fn renderer(model: &Arc<MjModel>) -> Result<MjRenderer, String> {
    let camera = match model.name_to_id(MjtObjBase::mjOBJ_CAMERA, CAMERA) {
        Some(id) => MjvCamera::new_fixed(id),
        None => MjvCamera::new_free(model),
    };
    let builder = MjRenderer::builder().width(SIZE.0).height(SIZE.1).camera(camera);
    builder.build(model).map_err(|e| format!("cannot start the renderer: {e}; {NEEDS}"))
}
