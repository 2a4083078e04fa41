#!/usr/bin/env bash

#SBATCH -J tandem
#SBATCH -p normal
#SBATCH -A lab
#SBATCH -n 1
#SBATCH --cpus-per-task=4
#SBATCH --mem=12G
#SBATCH -t 04:00:00
#SBATCH --gres=gpu:1
#SBATCH --exclusive
#SBATCH -o /dev/null
#SBATCH -e /dev/null
export OMP_NUM_THREADS=4
export MKL_NUM_THREADS=4
export OPENBLAS_NUM_THREADS=4
export ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=4
module load cuda
/opt/tandem/bin/python -m distributed.cli.dask_worker tls://SCHEDULER:PORT --name NAME --nthreads 1 --memory-limit 11.18GiB --nanny --death-timeout 60 --preload pipeline.run.preload --resources GPU=1 --protocol tls:// --tls-ca-file CERTIFICATE --tls-cert CERTIFICATE --tls-key KEY
