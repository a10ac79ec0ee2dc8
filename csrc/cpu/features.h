// Which instruction sets this CPU and its operating system can run, and which one is in use.
#pragma once

namespace fastmlp::cpu {

// In ascending order: a CPU that runs one runs those before it. avx2 includes FMA; avx512 means the
// F, VL, DQ and BW parts. Other processors than x86-64 know baseline only.
enum class InstructionSet { baseline, avx2, avx512 };

const char* name(InstructionSet set);

// The widest set that can run here.
InstructionSet widest_instruction_set();

// The widest set, or the one that the environment variable FASTMLP_ISA names. Throws
// std::runtime_error where that is unknown or cannot run here.
InstructionSet best_instruction_set();

// Whether this CPU works on 512-bit vectors in two halves, as AMD's Zen 4 does: AVX-512 is then no
// faster than AVX2 in a loop of FMAs alone.
bool has_half_width_avx512();

// Whether this CPU has AVX512_BF16, as Intel's Sapphire Rapids and AMD's Zen 4 have.
bool has_bfloat16();

// Whether this CPU gains by fetching for writing, some way ahead, what another core has read: two
// threads' updates on Intel's Emerald Rapids take 0.4 of the time, on AMD's Zen 3 up to twice.
bool gains_by_fetching_for_writing();

// Whether this CPU has AMX for bfloat16 beside it, and Linux lets this process use tiles, which is
// asked for the first time: whoever uses them has asked.
bool has_tiles();

// Whether FASTMLP_DISABLE, a list with commas, names this technique: for bench/ablation.py, which
// measures what each one gains. Looked up once, when it is first needed.
bool switched_off(const char* technique);

}  // namespace fastmlp::cpu
