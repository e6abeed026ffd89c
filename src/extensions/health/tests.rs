//! Reports made of fixtures and of this machine, through a real link.
