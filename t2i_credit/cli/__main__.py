"""`python -m t2i_credit.cli`, for torchrun and accelerate launch."""

from . import main

main()
