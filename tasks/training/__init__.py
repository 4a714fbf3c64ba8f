"""Data sets, LoRA, SFT and DPO: plain Python without Prefect or MLflow."""
