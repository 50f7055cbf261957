//! The guest of the demo and of the scenarios: its image, its workload and its judge.
