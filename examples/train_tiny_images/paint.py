"""Drawings made into pictures as they may come: other colours, sizes, places, bends, outlines and grounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def plain(rgba: Tensor) -> Tensor:
    """Return drawings on white: (n, 4, side, side) of 0 to 255 to (n, 3, side, side) between -1 and 1."""
    values = rgba.float() / 255
    return (values[:, :3] * values[:, 3:] + 1 - values[:, 3:]) * 2 - 1


def varied(rgba: Tensor) -> Tensor:
    """Return drawings as they may come, in the same shapes."""
    values = rgba.float() / 255
    colours, alpha = values[:, :3], values[:, 3:]
    drawn = torch.cat([_recoloured(colours) * alpha, alpha], 1)
    drawn = _outlined(_moved(drawn))
    soft = _some(len(drawn), 0.25)
    if len(soft):
        drawn[soft] = F.avg_pool2d(drawn[soft], 3, 1, 1)
    pictures = drawn[:, :3] + _ground(drawn) * (1 - drawn[:, 3:])
    pictures = pictures + 0.03 * torch.randn_like(pictures) * torch.rand(len(drawn), 1, 1, 1)
    # Squares are hidden, so that no part alone decides.
    seen = (torch.rand(len(drawn), 1, 4, 4) >= 0.15 * torch.rand(len(drawn), 1, 1, 1)).float()
    seen = F.interpolate(seen, pictures.shape[2:])
    return (pictures * seen + 0.5 * (1 - seen)).clamp(0, 1) * 2 - 1


def _some(count: int, share: float) -> Tensor:
    return (torch.rand(count) < share).nonzero()[:, 0]


def _recoloured(colours: Tensor) -> Tensor:
    count = len(colours)

    def each(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(count, channels, 1, 1)

    grey = colours.mean(1, keepdim=True)
    found = grey + (colours - grey) * each(0.2, 1.7)
    found = (found - 0.5) * each(0.6, 1.4) + 0.5 + each(-0.15, 0.15) + each(-0.12, 0.12, 3)
    mixed = _some(count, 0.3)
    if len(mixed):
        # Each colour becomes a mixture of all three.
        weights = torch.eye(3) + 0.5 * torch.randn(len(mixed), 3, 3)
        weights = weights / weights.sum(2, keepdim=True).abs().clamp(0.5)
        found[mixed] = torch.einsum("nij,njhw->nihw", weights, found[mixed])
    found = found.clamp(0, 1)
    flat = _some(count, 0.3)
    if len(flat):
        levels = torch.randint(2, 6, (len(flat), 1, 1, 1)).float()
        found[flat] = (found[flat] * levels).round() / levels
    return found


def _moved(drawn: Tensor) -> Tensor:
    """Turn, scale, shear, shift, bend and mirror."""
    count = len(drawn)
    angle, shear = 0.7 * (torch.rand(count) - 0.5), 0.3 * (torch.rand(count) - 0.5)
    wide = 0.7 + 0.65 * torch.rand(count)
    high = wide * (0.85 + 0.3 * torch.rand(count))
    mirrored = 1 - 2 * (torch.rand(count) < 0.3).float()
    across, down = 0.35 * (torch.rand(2, count) - 0.5)
    first = torch.stack([angle.cos() * wide * mirrored, -angle.sin() * wide + shear, across], 1)
    second = torch.stack([angle.sin() * high * mirrored, angle.cos() * high, down], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), list(drawn.shape), align_corners=False)
    bent = 0.09 * torch.randn(count, 2, 5, 5) * (torch.rand(count, 1, 1, 1) < 0.5)
    bend = F.interpolate(bent, drawn.shape[2:], mode="bicubic", align_corners=True)
    return F.grid_sample(drawn, grid + bend.permute(0, 2, 3, 1), align_corners=False)


def _outlined(drawn: Tensor) -> Tensor:
    """Draw dark lines where colours meet, in some the lines alone: many styles do so."""
    some = _some(len(drawn), 0.3)
    if not len(some):
        return drawn
    part = drawn[some]
    most, least = F.max_pool2d(part, 3, 1, 1), -F.max_pool2d(-part, 3, 1, 1)
    line = ((most - least).amax(1, keepdim=True) * 4 - 0.6).clamp(0, 1)
    kept = torch.rand(len(some), 1, 1, 1)
    kept = torch.where(kept < 0.3, torch.zeros_like(kept), torch.ones_like(kept))
    inside = part * kept * (1 - line)
    dark = 0.25 * torch.rand(len(some), 3, 1, 1)
    drawn[some] = torch.cat([inside[:, :3] + dark * line, (inside[:, 3:] + line).clamp(0, 1)], 1)
    return drawn


def _ground(drawn: Tensor) -> Tensor:
    """Return what is behind: white, or two colours that run into each other."""
    count, _, side, _ = drawn.shape
    ground = torch.ones(count, 3, side, side)
    some = _some(count, 0.5)
    top, bottom = torch.rand(len(some), 3, 1, 1), torch.rand(len(some), 3, 1, 1)
    ramp = torch.linspace(0, 1, side).view(1, 1, side, 1)
    ground[some] = (top * ramp + bottom * (1 - ramp)).expand(-1, -1, -1, side)
    return ground
