// Matrix products of programs: tiles for the team, by our own kernels or by the BLAS.
#pragma once

#include "cpu/execution.h"

namespace fastmlp::cpu {

// The BLAS where the instruction set in use has no kernels of ours, or FASTMLP_GEMM=blas asks for
// it. Throws std::runtime_error where that variable is neither "blas" nor "native".
bool uses_blas();

// A matmul with its epilogue, in tiles.
template <class T>
void execute(const MatMul& record, const Run& run);

// Floating-point operations of one run of a record: what decides how many threads are worth waking.
double operations(const MatMul& record, std::int64_t rows);

}  // namespace fastmlp::cpu
