"""EMO (2023): mobile backbones of one block, attention and a depth-wise convolution inside an inverted residual."""
