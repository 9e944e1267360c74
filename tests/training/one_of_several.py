"""What torchrun starts in the tests: Phases 1 and 3 of the tiny model, by all ranks together.

    torchrun --standalone --nproc-per-node 2 -m tests.training.one_of_several OUT [key=value ...]

Keys: n (samples), batch, epochs, dropout (0 takes it out), folder (of the state), resume, die (rank 1 raises after the
first epoch of Phase 1).
"""

import sys
from pathlib import Path

import torch
from torch import nn

from lasps.training.batches import BatchLoader
from lasps.training.inference import predict
from lasps.training.ranks import Ranks
from lasps.training.trainer import ThreePhaseTrainer
from tests.training.tiny import TinyDataset, make_model, make_trainer


def train(ranks: Ranks, n=60, batch=16, epochs=2, dropout=0, folder=None, resume=0, die=0) -> dict:
    """History of both phases, the weights, and what they say of other samples."""
    model = make_model()
    if not dropout:
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    if die and ranks.rank == 1:
        stop_after_first_epoch()
    history, trainer = {}, None
    for phase in (1, 3):
        trainer = make_trainer(model, ranks=ranks, resume_dir=folder, resume=bool(resume))
        train_loader = BatchLoader(TinyDataset(n), batch, shuffle=True, seed=5)
        run = {1: trainer.train_phase1, 3: trainer.train_phase3}[phase]
        history[phase] = run(train_loader, BatchLoader(TinyDataset(50, 1), 32), epochs=epochs, lr=3e-3, patience=epochs)
    logits = predict(trainer.model, TinyDataset(50, 1)).logits
    seed = torch.initial_seed()  # of the last epoch's noise
    return {"history": history, "state": trainer.state_dict(), "logits": logits, "seed": seed}


def stop_after_first_epoch() -> None:
    """Let this process fail in the second epoch."""
    real = ThreePhaseTrainer._train_epoch

    def failing(self, run, loader, bar):
        if run.epoch == 1:
            raise ValueError("rank 1 has had enough")
        return real(self, run, loader, bar)

    ThreePhaseTrainer._train_epoch = failing


def main() -> None:
    torch.set_num_threads(1)
    out, options = Path(sys.argv[1]), dict(pair.split("=") for pair in sys.argv[2:])
    folder = options.pop("folder", None)
    ranks = Ranks.started("cpu")
    found = train(ranks, folder=folder, **{key: int(value) for key, value in options.items()})
    torch.save(found, out.with_suffix(f".{ranks.rank}"))


if __name__ == "__main__":
    main()
