// The CUDA backend: kernels on a stream, replayed as a graph. All that other parts may know of it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/backend.h"

namespace fastmlp::cuda {

Backend& backend();

// Has large products go by cuBLASLt where that is faster. It is the first of these libraries, names
// or paths as dlopen takes them, that works; which way products go is kept in the file.
void use_blas(std::vector<std::string> libraries, const std::string& choices);

// Such as "cuBLASLt 13.1.0"; empty where there is none, or no GPU to ask for it. Opens it.
std::string blas_version();

// Which way each large product of this process goes.
std::map<std::string, std::string> large_products();

}  // namespace fastmlp::cuda
