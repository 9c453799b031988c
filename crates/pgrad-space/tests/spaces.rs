//! Parts, shapes and bounds.

use pgrad_space::{BoxSpace, Dtype, ObsSpace, Outside, Part, Space};

fn image_and_choice() -> ObsSpace {
    let part = |name: &str, space| Part { name: name.to_owned(), space };
    let image = BoxSpace::uniform(0.0, 255.0, 24).shaped(&[2, 3, 4], Dtype::U8);
    ObsSpace::of_parts(vec![part("image", image.into()), part("mode", Space::Discrete { n: 3 })])
}

#[test]
fn a_number_is_called_by_its_part_and_its_place() {
    let space = image_and_choice();
    assert_eq!((space.obs_dim(), space.parts().len(), space.single()), (27, 2, None));
    // Row-major: 23 = (1 * 3 + 2) * 4 + 3.
    assert_eq!(space.component(23), "component [1, 2, 3] of `image`");
    assert_eq!(space.component(6), "component [0, 1, 2] of `image`");
    assert_eq!(space.component(25), "component 1 of `mode`");
    assert_eq!(ObsSpace::from(BoxSpace::unbounded(3)).component(2), "component 2");
}

#[test]
fn what_lies_outside_is_found_in_every_part() {
    let space = image_and_choice();
    let mut obs = [0.0; 27];
    obs[25] = 1.0;
    assert_eq!(space.outside(&obs), None);
    obs[7] = 256.0;
    assert_eq!(space.outside(&obs), Some(Outside { index: 7, expected: "0 to 255".into() }));
    obs[7] = 255.0;
    obs[24] = 1.0;
    let expected = "one 1 and otherwise 0 among numbers 0 to 2".into();
    assert_eq!(space.outside(&obs), Some(Outside { index: 24, expected }), "two of three");
    let bits = ObsSpace::from(BoxSpace::uniform(0.0, 1.0, 2).shaped(&[2, 1], Dtype::Bool));
    assert_eq!(bits.outside(&[1.0, 0.5]), Some(Outside { index: 1, expected: "0 or 1".into() }));
}

#[test]
fn long_bounds_are_written_in_part() {
    let low: Vec<f32> = (0..20u8).map(f32::from).collect();
    let space = BoxSpace::new(low, vec![f32::INFINITY; 20]);
    let written = "Box([0.0 1.0 2.0 3.0 ... 16.0 17.0 18.0 19.0], inf, (20,), float32)";
    assert_eq!(Space::from(space).to_string(), written);
}

#[test]
fn every_type_has_its_name_and_size() {
    for t in Dtype::ALL {
        assert_eq!(Dtype::named(t.name()), Some(t));
        let bits = t.name().trim_start_matches(char::is_alphabetic).parse().unwrap_or(8);
        assert_eq!(t.size() * 8, bits, "{t}");
    }
    assert_eq!(Dtype::named("float"), None);
}
