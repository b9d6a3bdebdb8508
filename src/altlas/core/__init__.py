"""The pure core: no files, no network, no clock.

Nothing is re-exported here, so that importing one part loads no other.
"""

import os

# Without it MKL, which multiplies torch's matrices on x86, rounds by the number of threads: a run would end with other
# weights on another number. MKL reads this at its first product, so it is set before anything here can make one.
# Source: oneMKL Developer Guide, "Obtaining Numerically Reproducible Results", strict mode.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
