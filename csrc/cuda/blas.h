// Matrix products by cuBLASLt, if it is found when first asked for: it is never needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace fastmlp::cuda {

// float32 and float64 as they are; tf32 of float32 in memory, rounded or cut by the tensor cores;
// bfloat16 in memory. Sums and results are float32, of float64 that.
enum class Arithmetic : std::uint8_t { float32, float64, tf32, bfloat16 };

// What an algorithm is chosen for: out (m, n) = op(a) (m, k) op(b) (k, n), all row-major, where
// op(a) is a or, of an a stored as (k, m), its transpose. ld* are elements from row to row, and
// every row of every matrix starts at a multiple of `alignment` bytes.
struct Gemm {
  Arithmetic arithmetic;
  bool transpose_a, transpose_b;
  std::int64_t m, n, k, lda, ldb, ldout;
  int alignment;

  std::string text() const;
};

// An algorithm of cuBLASLt for a product, which needs so much memory to work in. `run` enqueues it
// on a stream (cudaStream_t), and is false where the library would not.
struct BlasProduct {
  std::size_t workspace = 0;
  std::function<bool(void* out, const void* a, const void* b, void* workspace, void* stream)> run;
};

// Where the library is to be looked for: names or paths as dlopen takes them, the best first.
// Forgets what was opened before.
void look_for_blas(std::vector<std::string> libraries);

// A product on the current GPU by the library that is there: what a choice is kept under.
std::string blas_name(const Gemm& gemm);

// A few algorithms for the current GPU, the best first by the library's own estimate, which is the
// same on every run; none where there is no library, or it cannot.
std::vector<BlasProduct> blas_products(const Gemm& gemm);

}  // namespace fastmlp::cuda
