#include "COrt.h"  // a target needs a source file
