// Matrix products by a BLAS: the vendored OpenBLAS, or the one that was linked at build time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/machine.h"

namespace fastmlp::cpu {

// The Fortran interface, which every BLAS has: column-major, 32-bit sizes, and the lengths of the
// two strings at the end.
template <class T>
using FortranGemm = void (*)(const char* transpose_a, const char* transpose_b, const int* m,
                             const int* n, const int* k, const T* alpha, const T* a, const int* lda,
                             const T* b, const int* ldb, const T* beta, T* c, const int* ldc,
                             std::size_t, std::size_t);

struct Blas : BlasInfo {
  FortranGemm<float> sgemm;
  FortranGemm<double> dgemm;
};

// Opened on first use. Any thread may call it, but the first call changes the environment for a
// moment (blas.cpp), so make it where no other thread reads or writes that: in Python, with the
// GIL. Throws std::runtime_error where the library cannot be opened; the next call tries again.
const Blas& blas();

// c (m, n) = alpha * op(a) (m, k) @ op(b) (k, n) + beta * c, all row-major, where op(a) is a or, of
// an a stored as (k, m), its transpose. ld* are elements from row to row. With beta = 0, c is not
// read. T is float or double. Throws std::invalid_argument for a size beyond the library's
// integers.
template <class T>
void gemm(T* c, std::int64_t ldc, const T* a, std::int64_t lda, bool transpose_a, const T* b,
          std::int64_t ldb, bool transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
          T alpha = 1, T beta = 0);

}  // namespace fastmlp::cpu
