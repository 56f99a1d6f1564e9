//! Events that are written for the model: they are raised, and nothing that it says lowers anything.
