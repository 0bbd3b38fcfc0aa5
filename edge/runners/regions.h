// Marks the stretch of instructions that the counters count: two hints that no core does anything on (the architecture
// leaves their numbers unallocated) and that no compiler emits. edge/cost looks for them in what is executed.
#pragma once

inline void region_begin() { __asm__ volatile("hint #112" ::: "memory"); }
inline void region_end() { __asm__ volatile("hint #113" ::: "memory"); }
