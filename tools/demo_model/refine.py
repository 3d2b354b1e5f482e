"""A beginning for the flow's estimator: a network that answers twice the way from ``x`` to the mean mel, whatever else it sees.

With random weights the estimator takes thousands of steps to learn to take the noise away again, since the last block normalises and
bends what passes it. This beginning sends ``mu - x`` along the residual paths (80 of the channels), holds mean and scale of the last
normalisation with large constants in the other channels, and lets every branch begin small. Two Euler steps of one half then end at
the mean mel, and training is left to find what is missing from it.
"""

from __future__ import annotations

import torch
from torch import nn

from chatterbox_turbo_rs.stages.s3gen.flow.python import ConditionalDecoder

CONSTANT = 50.0
"""Of the channels that hold the scale of the last normalisation, half of them negative."""
LIFT, GAIN = 2.5, 3.0
"""Bring what passes the last activation into its straight part."""
SMALL = 0.05
"""Scale of the branches at the beginning."""
AVERAGE = -3.0
"""Of ``mu - x``, about which the scale is set: some -5 in the first step, 0 in the second."""


@torch.no_grad()
def begin(estimator: ConditionalDecoder) -> None:
    mels, channels = estimator.final_proj.out_channels, estimator.final_proj.in_channels
    spare = channels - mels
    if spare < 2:
        raise ValueError(f"estimator.channels: expected more than mels + 1 = {mels + 1}, found {channels}")
    stages = [estimator.down_blocks[0], *estimator.mid_blocks, estimator.up_blocks[0]]
    for stage in stages:
        stage[0].block2.block[2].weight.mul_(SMALL)
        for transformer in stage[1]:
            transformer.attn1.to_out[0].weight.mul_(SMALL)
            transformer.ff.net[2].weight.mul_(SMALL)
        residual: nn.Conv1d = stage[0].res_conv
        residual.weight[:mels] = 0
        residual.bias[:mels] = 0
        if stage is stages[0]:
            residual.weight[:mels, :mels, 0] = -torch.eye(mels)  # x
            residual.weight[:mels, mels : 2 * mels, 0] = torch.eye(mels)  # mu
        else:
            residual.weight[:mels, :mels, 0] = torch.eye(mels)
        if len(stage) > 2:
            _keep(stage[2], mels)
    convolution, norm = estimator.final_block.block[0], estimator.final_block.block[2]
    _keep(convolution, mels)
    constants = CONSTANT * torch.ones(spare)
    constants[1::2] *= -1
    convolution.weight[mels:] = 0
    convolution.weight[mels:, :mels, -1] = -1 / spare  # the sum of all channels stays 0
    convolution.bias[mels:] = constants
    typical = torch.cat([torch.full((mels,), AVERAGE), constants - mels * AVERAGE / spare])
    scale = 2 * typical.square().mean().sqrt() / GAIN
    norm.weight[:mels], norm.bias[:mels] = GAIN, LIFT
    norm.weight[mels:] = SMALL
    estimator.final_proj.weight.mul_(SMALL)
    estimator.final_proj.weight[:, :mels, 0] = scale * torch.eye(mels)
    estimator.final_proj.bias.fill_(-scale * LIFT)


def _keep(convolution: nn.Conv1d, mels: int) -> None:
    """Lets the first channels of a causal convolution pass, with a little of what it did before."""
    convolution.weight[:mels] *= SMALL
    convolution.bias[:mels] = 0
    convolution.weight[:mels, :mels, -1] += torch.eye(mels)
