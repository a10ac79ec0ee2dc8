// Matrix products of programs: tiles for the team, by our own kernels or by the BLAS.
#pragma once

#include "cpu/execution.h"
#include "cpu/features.h"

namespace fastmlp::cpu {

// The BLAS where the instruction set in use has no kernels of ours, or FASTMLP_GEMM=blas asks for
// it. Throws std::runtime_error where that variable is neither "blas" nor "native".
bool uses_blas();

// Whether products can round what they multiply to bfloat16: the BLAS has float32 alone.
bool multiplies_bfloat16();

// Whether members each take their rows of the product (those that they have in every record that is
// shared out by rows), or tiles.
bool shared_by_rows(const MatMul& record, std::int64_t rows, std::int64_t replicas, int members);

// Our own kernel for a run's products.
template <class T>
auto kernel(const Run& run) {
  if (run.precision != Precision::bfloat16) return kernels<T>().matmul;
  return has_tiles() ? kernels<T>().matmul_tiles : kernels<T>().matmul_bfloat16;
}

// A matmul with its epilogue.
template <class T>
void execute(const MatMul& record, const Run& run);

// Its rows from `first` on, without an epilogue, written to `out` in rows as far apart as its own.
template <class T>
void multiply_rows(const MatMul& record, const Run& run, std::int64_t replica, std::int64_t first,
                   std::int64_t rows, T* out);

// Appends the product of each replica, ready for the kernel, to be computed many times by one
// member alone: a small network would feel how long it takes to find all of this out. Returns false
// where the product has to be executed.
template <class T>
bool bind(std::vector<Product<T>>& products, const MatMul& record, const Run& run);

}  // namespace fastmlp::cpu
