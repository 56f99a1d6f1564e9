//! In which order members came in the objects of each format.

use super::names::Known;
use crate::record::Order;

/// What one thread has seen of the objects of each tree: by the tree's number and the object's place.
#[derive(Default)]
pub(super) struct Orders {
    of_trees: Vec<Vec<Order<Known>>>,
}

impl Orders {
    /// Those of a tree with that number and so many places.
    pub(super) fn of_tree(&mut self, number: u32, n_places: usize) -> &mut [Order<Known>] {
        let number = number as usize;
        if self.of_trees.len() <= number {
            self.of_trees.resize_with(number + 1, Vec::new);
        }
        let orders = &mut self.of_trees[number];
        if orders.len() < n_places {
            orders.resize_with(n_places, Order::default);
        }
        orders
    }
}
